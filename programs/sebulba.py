"""Sebulba: actor threads on some devices and a learner on the others, an evaluator beside them.

References: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 4; Huang et al., "Cleanba: A Reproducible and Efficient Distributed Reinforcement Learning
Platform" (2023).
"""

from __future__ import annotations

import functools
from typing import Literal

import lpml
from lpml.agents.builder import AbstractBuilder
from lpml.agents.environments import make_environment, solved_at
from lpml.agents.impala import ImpalaConfig
from lpml.agents.ppo import PPOConfig
from lpml.agents.sebulba import Sebulba, check_numbers
from lpml.errors import UsageError
from lpml.nodes.counter import Counter
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.parameter_server import ParameterServer
from lpml.programs.agent_parts import add_evaluator, add_limits, find_spec
from lpml.programs.on_device import make_builder
from lpml.programs.several_learners import add_average, at_end, average_of, learner_seeds


def program(
    agent: Literal["ppo", "impala"] = "ppo",
    env: str = "CartPole-v1",
    num_envs: int = 32,
    num_actors: int | None = None,
    ahead: int = 1,
    num_learners: int = 1,
    target_return: float | None = None,
    max_actor_steps: int | None = 2_000_000,
    max_seconds: float | None = None,
    evaluation_episodes: int = 20,
    gpu: float = 0,
    seed: int = 0,
    ppo: PPOConfig = PPOConfig(),  # noqa: B008 - frozen
    impala: ImpalaConfig = ImpalaConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """Actors and the learner of an agent on the devices of one machine; stops when it is solved.

    Options of the agent that have their defaults become those known to be good for the
    environment, and a batch is one window of each environment.

    Args:
      agent: ppo or impala.
      env: any name of an environment: CartPole-v1, jax/Catch, envpool/Pong-v5, ALE/Pong-v5.
      num_envs: environments of all actors of a learner together.
      num_actors: threads that act, spread over the devices that act; without it one for each.
      ahead: rollouts by which actors may be ahead of the learner; 0 = they wait for each update.
      num_learners: nodes that act and learn, each in environments of its own; after each batch of
        rollouts all go on from the mean of their parameters.
      target_return: ends the program when the evaluator's mean return reaches it; without it what
        is known to be good on the environment.
      max_actor_steps: ends the program after so many steps of all environments.
      max_seconds: ends the program after so long.
      evaluation_episodes: of which the evaluator takes the mean return.
      gpu: accelerators of each node; some act, up to three quarters learn. 0 = all on the CPU.
      seed: of everything that is drawn.
      ppo: options of the agent, if it is ppo.
      impala: options of the agent, if it is impala.

    Raises:
      UsageError: there is no such environment or agent, or the numbers do not fit together.
    """
    if agent not in ("ppo", "impala"):
        raise UsageError(f"sebulba: agent={agent!r}; there are ppo and impala")
    builder = make_builder(agent, env, num_envs, ppo, impala)
    if evaluation_episodes < 1:
        raise UsageError(f"evaluation_episodes={evaluation_episodes}: give at least 1")
    actors = 1 if num_actors is None else num_actors
    check_numbers(num_envs, actors, builder.batches.batch_size, ahead)
    spec = find_spec(env)
    builder.policy(spec)  # faults show here, before anything is started
    p = lpml.Program("sebulba")
    counter, stopper = add_limits(
        p,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        target_return=solved_at(env) if target_return is None else target_return,
        episodes=evaluation_episodes,
    )
    server = add_average(p, builder, spec, num_learners=num_learners, seed=seed)
    with p.group("learner", resources=lpml.Resources(cpu=1, gpu=gpu)):
        learners = [
            p.add_node(
                lpml.Node(
                    make_sebulba,
                    builder,
                    env,
                    spec,
                    server,
                    counter,
                    num_envs=num_envs,
                    num_actors=num_actors,
                    ahead=ahead,
                    seed=own,
                )
            )
            for own in learner_seeds(seed, num_learners)
        ]
    add_evaluator(
        p, builder, env, learners[0], counter, stopper, episodes=evaluation_episodes, seed=seed
    )
    return p


def make_sebulba(
    builder: AbstractBuilder,
    environment: str,
    spec: EnvironmentSpec,
    server: ParameterServer | None,
    counter: Counter,
    *,
    num_envs: int,
    num_actors: int | None,
    ahead: int,
    seed: int,
) -> Sebulba:
    """A node that acts and learns; the first of several leaves its policy in the run folder."""
    return Sebulba(
        builder,
        functools.partial(make_environment, environment),
        num_envs=num_envs,
        num_actors=num_actors,
        ahead=ahead,
        average=average_of(server),
        seed=seed,
        counter=counter,
        at_end=at_end(builder, spec),
    )
