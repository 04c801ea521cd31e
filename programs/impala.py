"""IMPALA spread over nodes: actors send rollouts to a queue, one learner corrects what is stale.

References: that of `lpml.agents.impala`; Espeholt et al., "SEED RL: Scalable and Efficient Deep-RL
with Accelerated Central Inference", ICLR 2020 (with inference servers: actors have no network).
"""

from __future__ import annotations

import dataclasses

import lpml
from lpml.agents.environments import solved_at, task_of
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.programs.actor_learner import actor_learner

REWARD_SCALE = {"CartPole-v1": 0.1}
"""By which rewards are multiplied where returns are too large to be learned as they are."""


def program(
    env: str = "Catch",
    num_actors: int = 2,
    envs_per_actor: int = 8,
    target_return: float | None = None,
    max_actor_steps: int | None = 1_000_000,
    max_seconds: float | None = None,
    num_inference_servers: int = 0,
    evaluation_episodes: int = 20,
    num_learners: int = 1,
    learner_gpu: float = 0,
    seed: int = 0,
    config: ImpalaConfig = ImpalaConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """IMPALA on Catch or another environment with discrete actions; stops when it is solved.

    Args:
      env: any name of an environment: CartPole-v1, Catch, jax/GridWorld, envpool/Pong-v5.
      num_actors: nodes that act for a learner.
      envs_per_actor: environments in each, stepped together.
      target_return: ends the program when the evaluator's mean return reaches it; without it 475
        on CartPole-v1 and 0.95 on Catch, elsewhere never.
      max_actor_steps: ends the program after so many steps of all actors.
      max_seconds: ends the program after so long.
      num_inference_servers: nodes that choose actions for those of a learner; 0 = each its own.
      evaluation_episodes: of which the evaluator takes the mean return.
      num_learners: nodes that learn, each from actors of its own; after each step of theirs all
        go on from the mean of their parameters.
      learner_gpu: accelerators of a learner, a fraction perhaps; 0 = it learns on the CPU.
      seed: of everything that is drawn.
      config: options of the agent.
    """
    return actor_learner(
        ImpalaBuilder(config_for(env, config)),
        env,
        num_actors=num_actors,
        envs_per_actor=envs_per_actor,
        num_inference_servers=num_inference_servers,
        evaluation_episodes=evaluation_episodes,
        target_return=solved_at(env) if target_return is None else target_return,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        num_learners=num_learners,
        learner_gpu=learner_gpu,
        seed=seed,
    )


def config_for(env: str, config: ImpalaConfig) -> ImpalaConfig:
    """The config with what is known of the environment, where it leaves that open."""
    if config.reward_scale is not None:
        return config
    return dataclasses.replace(config, reward_scale=REWARD_SCALE.get(task_of(env)))
