"""Anakin: an agent and its environments in one jitted loop, an evaluator beside it.

References: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 3; Liang et al., "GPU-Accelerated Robotic Simulation for Distributed Reinforcement
Learning", CoRL 2018.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import lpml
from lpml.agents.anakin import Anakin
from lpml.agents.builder import AbstractBuilder
from lpml.agents.fused import Fused
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.jax_environments import simulation_named
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.errors import UsageError
from lpml.nodes.counter import Counter
from lpml.nodes.evaluator import Evaluator
from lpml.nodes.simulation import AbstractSimulation
from lpml.nodes.simulator import VectorSimulator
from lpml.nodes.stopper import Stopper
from lpml.programs.actor_learner import leave_policy
from lpml.programs.impala import config_for
from lpml.programs.ppo import adapted

SOLVED = {"CartPole-v1": 475.0, "Catch": 0.95, "Pendulum-v1": -200.0, "GridWorld": 0.9}
"""Mean returns at which an environment counts as solved."""

_EVALUATION = 104_729  # between the seed of the learner and that of the evaluator


def program(
    agent: Literal["ppo", "impala"] = "ppo",
    env: str = "CartPole-v1",
    num_envs: int | None = None,
    iterations: int = 8,
    target_return: float | None = None,
    max_actor_steps: int | None = 5_000_000,
    max_seconds: float | None = None,
    evaluation_episodes: int = 20,
    gpu: float = 0,
    seed: int = 0,
    ppo: PPOConfig = PPOConfig(),  # noqa: B008 - frozen
    impala: ImpalaConfig = ImpalaConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """An agent in the same jitted loop as its environments; stops when the environment is solved.

    Options of the agent that have their defaults become those known to be good for the
    environment, and a batch is one window of each environment.

    Args:
      agent: ppo or impala.
      env: CartPole-v1, Catch, GridWorld, Pendulum-v1, or gymnax/NAME.
      num_envs: environments, stepped together on the device; without it 32.
      iterations: rollouts, and updates from them, of one call of the device.
      target_return: ends the program when the evaluator's mean return reaches it; without it 475
        on CartPole-v1, 0.95 on Catch, -200 on Pendulum-v1, 0.9 on GridWorld, elsewhere never.
      max_actor_steps: ends the program after so many steps of all environments.
      max_seconds: ends the program after so long.
      evaluation_episodes: of which the evaluator takes the mean return.
      gpu: accelerators of the learner; 0 = all happens on the CPU.
      seed: of everything that is drawn.
      ppo: options of the agent, if it is ppo.
      impala: options of the agent, if it is impala.

    Raises:
      UsageError: there is no such environment or agent, or the numbers do not fit together.
    """
    environment = simulation_named(env)
    builder = make_builder(agent, env, num_envs or 32, ppo, impala)
    if iterations < 1 or evaluation_episodes < 1:
        raise UsageError(
            f"iterations={iterations}, evaluation_episodes={evaluation_episodes}: give at least 1"
        )
    builder.policy(environment.spec)  # faults show here, before anything is started
    known = SOLVED.get(env.removeprefix("jax/"))
    p = lpml.Program("anakin")
    with p.group("counter", resources=lpml.Resources(cpu=0.1)):
        counter = p.add_node(lpml.Node(Counter))
    with p.group("stopper", resources=lpml.Resources(cpu=0.1)):
        stopper = p.add_node(
            lpml.Node(
                Stopper,
                counter,
                max_steps=max_actor_steps,
                max_seconds=max_seconds,
                target_return=known if target_return is None else target_return,
                min_episodes=evaluation_episodes,
            )
        )
    with p.group("learner", resources=lpml.Resources(cpu=1, gpu=gpu)):
        learner = p.add_node(
            lpml.Node(
                make_anakin,
                builder,
                environment,
                counter,
                num_envs=num_envs,
                iterations=iterations,
                seed=seed,
            )
        )
    with p.group("evaluator"):
        p.add_node(
            lpml.Node(
                make_evaluator,
                builder,
                environment,
                learner,
                counter,
                stopper,
                episodes=evaluation_episodes,
                seed=seed + _EVALUATION,
            )
        )
    return p


def make_builder(
    agent: str, env: str, num_envs: int, ppo: PPOConfig, impala: ImpalaConfig
) -> AbstractBuilder:
    """The agent, with what is known of the environment where its options leave that open."""
    name = env.rpartition("/")[2]
    if agent == "impala":
        config = config_for(name, impala)
        if config.batch_size == ImpalaConfig().batch_size:
            config = dataclasses.replace(config, batch_size=num_envs)
        return ImpalaBuilder(config)
    if agent != "ppo":
        raise UsageError(f"anakin: agent={agent!r}; there are ppo and impala")
    if ppo.minibatches == PPOConfig().minibatches and name != "Pendulum-v1":
        ppo = dataclasses.replace(ppo, minibatches=8)
    return PPOBuilder(adapted(ppo, name, num_envs))


def make_anakin(
    builder: AbstractBuilder,
    environment: AbstractSimulation,
    counter: Counter,
    *,
    num_envs: int | None,
    iterations: int,
    seed: int,
) -> Anakin:
    """The node that acts and learns, which leaves its policy in the run folder."""
    return Anakin(
        Fused(builder, environment, num_envs=num_envs, iterations=iterations),
        seed=seed,
        counter=counter,
        at_end=functools.partial(leave_policy, builder, environment.spec),
    )


def make_evaluator(
    builder: AbstractBuilder,
    environment: AbstractSimulation,
    learner: Anakin,
    counter: Counter,
    stopper: Stopper,
    *,
    episodes: int,
    seed: int,
) -> Evaluator:
    """Plays whole episodes without exploration, all at once where there are few."""
    made = VectorSimulator(environment, min(episodes, 20), seed)
    return Evaluator(
        made,
        builder.policy(made.spec, evaluation=True),
        learner,
        episodes=episodes,
        counter=counter,
        stopper=stopper,
        seed=seed,
    )
