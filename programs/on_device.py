"""Anakin: an agent and its environments in one jitted loop, an evaluator beside it.

References: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 3; Liang et al., "GPU-Accelerated Robotic Simulation for Distributed Reinforcement
Learning", CoRL 2018.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

import lpml
from lpml.agents.anakin import Anakin
from lpml.agents.builder import AbstractBuilder
from lpml.agents.dqn import DQNBuilder, DQNConfig
from lpml.agents.environments import solved_at
from lpml.agents.fused import Fused, make_intake
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.jax_environments import SIMULATIONS, is_simulation, simulation_named
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.errors import UsageError
from lpml.nodes.counter import Counter
from lpml.nodes.parameter_server import ParameterServer
from lpml.nodes.simulation import AbstractSimulation
from lpml.programs.agent_parts import add_evaluator, add_limits
from lpml.programs.impala import config_for
from lpml.programs.ppo import adapted
from lpml.programs.several_learners import add_average, at_end, average_of, learner_seeds


def program(
    agent: Literal["ppo", "impala", "dqn"] = "ppo",
    env: str = "CartPole-v1",
    num_envs: int = 32,
    iterations: int = 8,
    num_learners: int = 1,
    target_return: float | None = None,
    max_actor_steps: int | None = 5_000_000,
    max_seconds: float | None = None,
    evaluation_episodes: int = 20,
    gpu: float = 0,
    seed: int = 0,
    ppo: PPOConfig = PPOConfig(),  # noqa: B008 - frozen
    impala: ImpalaConfig = ImpalaConfig(),  # noqa: B008 - frozen
    dqn: DQNConfig = DQNConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """An agent in the same jitted loop as its environments; stops when the environment is solved.

    Options of the agent that have their defaults become those known to be good for the
    environment, and a batch of ppo or impala is one window of each environment.

    Args:
      agent: ppo, impala or dqn.
      env: CartPole-v1, Catch, GridWorld, Pendulum-v1, or gymnax/NAME, brax/NAME or mjx/NAME.
      num_envs: environments of each learner, stepped together on its devices.
      iterations: rollouts (of dqn: ticks), and updates from them, of one call of the device.
      num_learners: nodes that act and learn, each in environments of its own; after each call of
        the device all go on from the mean of their parameters.
      target_return: ends the program when the evaluator's mean return reaches it; without it 475
        on CartPole-v1, 0.95 on Catch, -200 on Pendulum-v1, 0.9 on GridWorld, elsewhere never.
      max_actor_steps: ends the program after so many steps of all environments.
      max_seconds: ends the program after so long.
      evaluation_episodes: of which the evaluator takes the mean return.
      gpu: accelerators of each learner; 0 = all happens on the CPU.
      seed: of everything that is drawn.
      ppo: options of the agent, if it is ppo.
      impala: options of the agent, if it is impala.
      dqn: options of the agent, if it is dqn.

    Raises:
      UsageError: there is no such environment or agent, or the numbers do not fit together.
    """
    name, environment = find_simulation(env)
    builder = make_builder(agent, env, num_envs, ppo, impala, dqn)
    if iterations < 1 or evaluation_episodes < 1:
        raise UsageError(
            f"iterations={iterations}, evaluation_episodes={evaluation_episodes}: give at least 1"
        )
    builder.policy(environment.spec)  # faults show here, before anything is started
    make_intake(builder, environment, num_envs)  # here, too
    p = lpml.Program("anakin")
    counter, stopper = add_limits(
        p,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        target_return=solved_at(name) if target_return is None else target_return,
        episodes=evaluation_episodes,
    )
    server = add_average(p, builder, environment.spec, num_learners=num_learners, seed=seed)
    with p.group("learner", resources=lpml.Resources(cpu=1, gpu=gpu)):
        learners = [
            p.add_node(
                lpml.Node(
                    make_anakin,
                    builder,
                    environment,
                    server,
                    counter,
                    num_envs=num_envs,
                    iterations=iterations,
                    seed=own,
                )
            )
            for own in learner_seeds(seed, num_learners)
        ]
    add_evaluator(
        p, builder, name, learners[0], counter, stopper, episodes=evaluation_episodes, seed=seed
    )
    return p


def find_simulation(env: str) -> tuple[str, AbstractSimulation]:
    """The environment, and its name as `make_environment` takes it.

    Raises:
      UsageError: there is none; the message says what takes an environment of the host.
    """
    name = env if is_simulation(env) else f"jax/{env}"
    try:
        return name, simulation_named(name)
    except UsageError as error:
        if is_simulation(env) or difflib.get_close_matches(
            name, SIMULATIONS
        ):  # it says what is near
            raise
        own = ", ".join(known.partition("/")[2] for known in SIMULATIONS)
        raise UsageError(
            f"anakin: {env!r} is none of what steps on the device: {own}, gymnax/NAME, "
            f"brax/NAME, mjx/NAME. `lpml run sebulba --env {env}` takes those that are stepped on "
            "the host, as do ppo, impala and dqn"
        ) from error


def make_builder(
    agent: str,
    env: str,
    num_envs: int,
    ppo: PPOConfig = PPOConfig(),  # noqa: B008 - frozen
    impala: ImpalaConfig = ImpalaConfig(),  # noqa: B008 - frozen
    dqn: DQNConfig = DQNConfig(),  # noqa: B008 - frozen
) -> AbstractBuilder:
    """The agent, with what is known of the environment where its options leave that open."""
    if num_envs < 1:
        raise UsageError(f"num_envs={num_envs}: give at least 1")
    if agent == "impala":
        config = config_for(env, impala)
        if config.batch_size == ImpalaConfig().batch_size:
            config = dataclasses.replace(config, batch_size=num_envs)
        return ImpalaBuilder(config)
    if agent == "dqn":
        return DQNBuilder(dqn)
    if agent != "ppo":
        raise UsageError(f"agent={agent!r}; there are ppo, impala and dqn")
    if ppo.minibatches == PPOConfig().minibatches:
        ppo = dataclasses.replace(ppo, minibatches=8)
    return PPOBuilder(adapted(ppo, env, num_envs))


def make_anakin(
    builder: AbstractBuilder,
    environment: AbstractSimulation,
    server: ParameterServer | None,
    counter: Counter,
    *,
    num_envs: int,
    iterations: int,
    seed: int,
) -> Anakin:
    """A node that acts and learns; the first of several leaves its policy in the run folder."""
    return Anakin(
        Fused(builder, environment, num_envs=num_envs, iterations=iterations),
        average=average_of(server),
        seed=seed,
        counter=counter,
        at_end=at_end(builder, environment.spec),
    )
