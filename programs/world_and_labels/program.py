"""One graph, two worlds: an agent sees through an encoder that is trained beside it.

Actors write what they see into a replay. Supervised workers learn from these frames to foretell
the next ones, through a parameter server; the agent's policy is a head on their encoder, trained
by PPO. Neither half waits for the other to be finished, and they are one program: one command, one
checkpoint, one stop.

References: Ha and Schmidhuber, "World Models" (2018), where the same happens one after the other;
Jaderberg et al., "Reinforcement Learning with Unsupervised Auxiliary Tasks" (2017); those of
`lpml.agents.ppo` and `lpml.programs.supervised.parameter_server`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import numpy as np
import optax

import lpml
from lpml.agents.builder import seeded
from lpml.agents.environments import solved_at
from lpml.errors import UsageError, closest
from lpml.nodes import AbstractParameterServer, Counter, Learner, ParameterServer
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.experience import example_batch
from lpml.nodes.replay import AbstractReplay, Replay
from lpml.programs.actor_learner import make_actor
from lpml.programs.agent_parts import add_evaluator, add_limits, find_spec, leave_policy
from lpml.programs.world_and_labels import snow
from lpml.programs.world_and_labels.agent import EncodedPPOBuilder, EncodedPPOConfig
from lpml.programs.world_and_labels.labels import (
    EncodedBatches,
    Examiner,
    HeldOut,
    Worker,
    with_encoder,
)

WORLDS: Mapping[str, str] = {
    "snowy/Catch": f"{snow.__name__}:catch",
    "snowy/GridWorld": f"{snow.__name__}:grid_world",
}
"""What this program adds to the environments of `make_environment`."""


def program(
    env: str = "snowy/Catch",
    num_actors: int = 1,
    envs_per_actor: int = 8,
    num_workers: int = 1,
    encoder_rate: float = 1e-2,
    worker_batch: int = 64,
    refresh: int = 4,
    target_return: float | None = None,
    max_actor_steps: int | None = 200_000,
    max_seconds: float | None = None,
    evaluation_episodes: int = 50,
    learner_gpu: float = 0,
    seed: int = 0,
    config: EncodedPPOConfig = EncodedPPOConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """An agent that sees through an encoder, and workers that train the encoder on what it saw.

    With `--num-workers 0` the encoder stays as it was drawn, to see what the other half is good
    for.

    Args:
      env: snowy/Catch, snowy/GridWorld, or another environment whose observation is one array and
        whose actions are discrete, such as jax/Catch.
      num_actors: nodes that act.
      envs_per_actor: environments in each, stepped together; a batch is one window of each.
      num_workers: nodes that train the encoder; 0 = nobody does.
      encoder_rate: learning rate of Adam, on the parameter server.
      worker_batch: frames of one gradient.
      refresh: updates of the agent from one look for a newer encoder to the next.
      target_return: ends the program when the evaluator's mean return reaches it; without it what
        the environment counts as solved at, if that is known.
      max_actor_steps: ends the program after so many steps of all actors.
      max_seconds: ends the program after so long.
      evaluation_episodes: of which the evaluator takes the mean return.
      learner_gpu: accelerators of the learner, a fraction perhaps; 0 = it learns on the CPU.
      seed: of everything that is drawn.
      config: options of the agent and of the encoder.

    Raises:
      UsageError: there is no such environment, it does not fit, or a number is out of range.
    """
    for name, value, least in (
        ("num_actors", num_actors, 1),
        ("envs_per_actor", envs_per_actor, 1),
        ("num_workers", num_workers, 0),
        ("worker_batch", worker_batch, 1),
        ("refresh", refresh, 1),
        ("evaluation_episodes", evaluation_episodes, 1),
    ):
        if value < least:
            raise UsageError(f"{name}={value}: give at least {least}")
    if not encoder_rate > 0:
        raise UsageError(f"encoder_rate={encoder_rate}: give one above 0")
    if env.startswith("snowy/") and env not in WORLDS:
        raise UsageError(f"env={env!r}: this program has no such world{closest(env, list(WORLDS))}")
    where = WORLDS.get(env, env)
    spec = find_spec(where)
    builder = make_builder(config, num_actors * envs_per_actor, num_workers, seed)
    model = builder.model(spec)
    tables = builder.tables(spec)  # faults show here, before anything is started

    p = lpml.Program("world_and_labels")
    counter, stopper = add_limits(
        p,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        target_return=solved_at(env.removeprefix("snowy/"))
        if target_return is None
        else target_return,
        episodes=evaluation_episodes,
    )
    with p.group("replay"):
        replay = p.add_node(lpml.Node(Replay, seeded(tables, seed)))

    # The half with labels.
    with p.group("encoder"):
        server = p.add_node(
            lpml.Node(
                ParameterServer,
                functools.partial(model.init, builder.config.encoder_seed),
                optax.adam(encoder_rate),
            )
        )
    with p.group("worker"):
        for _ in range(num_workers):
            p.add_node(lpml.Node(Worker, model, server, replay, batch_size=worker_batch))
    with p.group("held_out"):
        held_out = p.add_node(lpml.Node(HeldOut, where, seed=seed + 1))
    with p.group("examiner"):
        p.add_node(lpml.Node(Examiner, model, server, held_out))

    # The half in the world.
    with p.group("learner", resources=lpml.Resources(cpu=1, gpu=learner_gpu)):
        learner = p.add_node(
            lpml.Node(
                make_learner, builder, spec, replay, server, counter, refresh=refresh, seed=seed
            )
        )
    with p.group("actor"):
        for actor in range(num_actors):
            p.add_node(
                lpml.Node(
                    make_actor,
                    builder,
                    where,
                    learner,
                    None,
                    replay,
                    counter,
                    actor=actor,
                    num_actors=num_actors,
                    num_envs=envs_per_actor,
                    max_age=None,
                    seed=seed,
                )
            )
    add_evaluator(
        p,
        builder,
        where,
        learner,
        counter,
        stopper,
        episodes=evaluation_episodes,
        seed=seed,
    )
    return p


def make_builder(
    config: EncodedPPOConfig, num_envs: int, num_workers: int, seed: int
) -> EncodedPPOBuilder:
    """The agent: its batch, seed and limiter follow from the program where `config` is silent."""
    default = EncodedPPOConfig()
    if config.batch_size == default.batch_size:
        config = dataclasses.replace(config, batch_size=num_envs)
    if config.encoder_seed == default.encoder_seed:
        config = dataclasses.replace(config, encoder_seed=seed)
    if num_workers == 0:  # who waits for nobody's samples would wait for ever
        config = dataclasses.replace(config, samples_per_frame=0.0)
    return EncodedPPOBuilder(config)


def make_learner(
    builder: EncodedPPOBuilder,
    spec: EnvironmentSpec,
    replay: AbstractReplay,
    server: AbstractParameterServer,
    counter: Counter,
    *,
    refresh: int,
    seed: int,
) -> Learner:
    """The learner of the head, which leaves its policy in the run folder."""
    batches = builder.batches
    table = next(table for table in builder.tables(spec) if table.name == batches.table)
    example = example_batch(table, builder.cuts(spec)[batches.table], batches.batch_size)
    weights = jax.tree.map(np.zeros_like, builder.model(spec).init())
    return Learner(
        builder.algorithm(spec),
        functools.partial(
            EncodedBatches, replay, batches.table, batches.batch_size, server, refresh=refresh
        ),
        batch_size=batches.batch_size,
        replay=replay,
        table=batches.table,
        counter=counter,
        seed=seed,
        example=with_encoder(example, weights, np.float32(0)),
        at_end=functools.partial(leave_policy, builder, spec),
    )
