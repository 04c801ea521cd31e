"""Any agent spread over nodes: actors fill a replay, a learner empties it, an evaluator looks on.

Reference: Hoffman et al., "Acme: A Research Framework for Distributed Reinforcement Learning"
(2020), section 2: actors, dataset and learner apart, held in proportion by the replay's limiter.
"""

from __future__ import annotations

import functools

import jax

import lpml
from lpml.agents.builder import AbstractBuilder, seeded
from lpml.agents.environments import make_environment
from lpml.errors import UsageError
from lpml.nodes.actor import Actor
from lpml.nodes.counter import Counter
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.experience import example_batch
from lpml.nodes.inference_server import InferenceServer, RemotePolicy
from lpml.nodes.learner import Learner
from lpml.nodes.parameter_server import ParameterServer
from lpml.nodes.replay import AbstractReplay, Adder, Prefetcher, Replay, ReplayShards
from lpml.nodes.roles import Params
from lpml.programs.agent_parts import add_evaluator, add_limits, find_spec, seed_of
from lpml.programs.several_learners import add_average, at_end, average_of, learner_seeds


def actor_learner(
    builder: AbstractBuilder,
    environment: str,
    *,
    num_actors: int = 2,
    envs_per_actor: int = 8,
    num_replays: int = 1,
    num_inference_servers: int = 0,
    num_learners: int = 1,
    evaluation_episodes: int = 20,
    target_return: float | None = None,
    max_actor_steps: int | None = None,
    max_seconds: float | None = None,
    max_age: float | None = None,
    learner_gpu: float = 0,
    seed: int = 0,
) -> lpml.Program:
    """A program in which an agent learns an environment.

    When it stops, the policy is in the run folder, for `lpml.agents.load_policy`.

    Args:
      builder: of the agent.
      environment: by name, as `make_environment` takes it.
      num_actors: nodes that act for a learner.
      envs_per_actor: environments in each, stepped together.
      num_replays: nodes over which a learner's replay is spread.
      num_inference_servers: nodes that choose the actions of a learner's actors; 0 = each its own.
      num_learners: nodes that learn, each from actors and replays of its own; after each step of
        theirs all go on from the mean of their parameters.
      evaluation_episodes: of which the evaluator takes the mean return; 0 = no evaluator.
      target_return: a mean return that is good enough to stop.
      max_actor_steps: of all actors, to stop after.
      max_seconds: to stop after.
      max_age: seconds that an actor's parameters may be old; `None` = as they come.
      learner_gpu: accelerators of a learner, a fraction perhaps; 0 = it learns on the CPU.
      seed: of everything that is drawn.

    Raises:
      UsageError: the environment cannot be made, or does not fit the agent, or a table could
        never be sampled.
    """
    if num_actors < 1 or num_replays < 1 or num_inference_servers < 0:
        raise UsageError(
            f"num_actors={num_actors}, num_replays={num_replays}, num_inference_servers="
            f"{num_inference_servers}: give at least 1, 1 and 0"
        )
    if target_return is not None and evaluation_episodes < 1:
        raise UsageError(
            f"target_return={target_return} with evaluation_episodes={evaluation_episodes}: "
            "nobody would measure it; let the evaluator play at least 1 episode"
        )
    spec = find_spec(environment)
    tables = builder.tables(spec)  # faults show here, before anything is started
    p = lpml.Program(builder.name)
    counter, stopper = add_limits(
        p,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        target_return=target_return,
        episodes=evaluation_episodes,
    )
    average = add_average(p, builder, spec, num_learners=num_learners, seed=seed)
    replays: list[AbstractReplay] = []
    with p.group("replay"):
        for first in range(0, num_learners * num_replays, num_replays):
            shards = [
                p.add_node(lpml.Node(Replay, seeded(tables, seed_of(seed, shard))))
                for shard in range(first, first + num_replays)
            ]
            replays.append(shards[0] if num_replays == 1 else ReplayShards(shards))
    with p.group("learner", resources=lpml.Resources(cpu=1, gpu=learner_gpu)):
        learners = [
            p.add_node(lpml.Node(make_learner, builder, spec, replay, average, counter, seed=own))
            for replay, own in zip(replays, learner_seeds(seed, num_learners), strict=True)
        ]
    servers: list[InferenceServer] = []
    if num_inference_servers:
        with p.group("inference"):
            servers = [
                p.add_node(
                    lpml.Node(
                        make_inference_server,
                        builder,
                        spec,
                        learners[server // num_inference_servers],
                        server=server,
                        num_servers=num_learners * num_inference_servers,
                        max_age=max_age,
                        seed=seed,
                    )
                )
                for server in range(num_learners * num_inference_servers)
            ]
    with p.group("actor"):
        for actor in range(num_learners * num_actors):
            learner = actor // num_actors
            own_servers = servers[learner * num_inference_servers :][:num_inference_servers]
            p.add_node(
                lpml.Node(
                    make_actor,
                    builder,
                    environment,
                    learners[learner],
                    own_servers[actor % len(own_servers)] if own_servers else None,
                    replays[learner],
                    counter,
                    actor=actor,
                    num_actors=num_learners * num_actors,
                    num_envs=envs_per_actor,
                    max_age=max_age,
                    seed=seed,
                )
            )
    if evaluation_episodes:
        add_evaluator(
            p,
            builder,
            environment,
            learners[0],
            counter,
            stopper,
            episodes=evaluation_episodes,
            seed=seed,
        )
    return p


def make_learner(
    builder: AbstractBuilder,
    spec: EnvironmentSpec,
    replay: AbstractReplay,
    average: ParameterServer | None,
    counter: Counter,
    *,
    seed: int,
) -> Learner:
    """A learner of an agent; the first of several leaves its policy in the run folder."""
    batches = builder.batches
    count = batches.batch_size * batches.updates_per_step
    table = next(table for table in builder.tables(spec) if table.name == batches.table)
    return Learner(
        builder.algorithm(spec),
        functools.partial(Prefetcher, replay, batches.table, count),
        batch_size=batches.batch_size,
        updates_per_step=batches.updates_per_step,
        replay=replay,
        table=batches.table,
        average=average_of(average),
        counter=counter,
        seed=seed,
        example=example_batch(table, builder.cuts(spec)[batches.table], count),
        at_end=at_end(builder, spec),
    )


def make_actor(
    builder: AbstractBuilder,
    environment: str,
    learner: Learner,
    server: InferenceServer | None,
    replay: AbstractReplay,
    counter: Counter,
    *,
    actor: int,
    num_actors: int,
    num_envs: int,
    max_age: float | None,
    seed: int,
) -> Actor:
    """One of the actors, with environments of its own; it acts itself, or asks a server."""
    made = make_environment(environment, num_envs, seed_of(seed, actor))
    adder = Adder(replay, builder.cuts(made.spec), num_envs=num_envs)
    if server is not None:
        return Actor(
            made, RemotePolicy(server), None, adder, counter=counter, seed=seed_of(seed, actor)
        )
    return Actor(
        made,
        builder.policy(made.spec, actor=actor, num_actors=num_actors),
        learner,
        adder,
        counter=counter,
        seed=seed_of(seed, actor),
        max_age=max_age,
        example=_example_params(builder, made.spec),
    )


def make_inference_server(
    builder: AbstractBuilder,
    spec: EnvironmentSpec,
    learner: Learner,
    *,
    server: int,
    num_servers: int,
    max_age: float | None,
    seed: int,
) -> InferenceServer:
    """One of the nodes that choose actions for actors."""
    return InferenceServer(
        builder.policy(spec, actor=server, num_actors=num_servers),
        learner,
        seed=seed_of(seed, server),
        max_age=max_age,
    )


def _example_params(builder: AbstractBuilder, spec: EnvironmentSpec) -> Params:
    """The shapes and types of what the policy takes, a tree of `jax.ShapeDtypeStruct`."""
    algorithm = builder.algorithm(spec)
    return jax.eval_shape(lambda: algorithm.variables(algorithm.init(jax.random.key(0))))
