"""PPO spread over nodes: actors send rollouts to a queue, one learner makes epochs over each batch.

References: those of `lpml.agents.ppo`; Heess et al., "Emergence of Locomotion Behaviours in Rich
Environments" (2017), section 3.1 (workers that collect for one policy).
"""

from __future__ import annotations

import dataclasses

import lpml
from lpml.agents.environments import solved_at
from lpml.agents.ppo import PPOBuilder, PPOConfig, recommended
from lpml.programs.actor_learner import actor_learner


def program(
    env: str = "CartPole-v1",
    num_actors: int = 2,
    envs_per_actor: int = 4,
    target_return: float | None = None,
    max_actor_steps: int | None = 500_000,
    max_seconds: float | None = None,
    evaluation_episodes: int = 20,
    num_learners: int = 1,
    learner_gpu: float = 0,
    seed: int = 0,
    adapt: bool = True,
    config: PPOConfig = PPOConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """PPO on CartPole-v1, Pendulum-v1 or another environment; stops when it is solved.

    Actors wait while the queue holds `config.queued_batches` batches, so data are a few updates
    old at most: those queued, two that the learner fetches ahead, and the one being collected.
    Each step brings the log-probability of its action under the policy that took it, so ratios
    are right at any age; the metric `lag_kl` says how far the learner has moved from that policy.

    Args:
      env: any name of an environment: CartPole-v1, Catch, jax/GridWorld, envpool/Pong-v5.
      num_actors: nodes that act for a learner.
      envs_per_actor: environments in each, stepped together.
      target_return: ends the program when the evaluator's mean return reaches it; without it 475
        on CartPole-v1, 0.95 on Catch and -200 on Pendulum-v1, elsewhere never.
      max_actor_steps: ends the program after so many steps of all actors.
      max_seconds: ends the program after so long.
      evaluation_episodes: of which the evaluator takes the mean return.
      num_learners: nodes that learn, each from actors of its own; after each step of theirs all
        go on from the mean of their parameters.
      learner_gpu: accelerators of a learner, a fraction perhaps; 0 = it learns on the CPU.
      seed: of everything that is drawn.
      adapt: options of `config` that have their defaults become those recommended for the
        environment, and a batch is one window of each environment; no = `config` as it is.
      config: options of the agent.
    """
    if adapt:
        config = adapted(config, env, num_actors * envs_per_actor)
    return actor_learner(
        PPOBuilder(config),
        env,
        num_actors=num_actors,
        envs_per_actor=envs_per_actor,
        evaluation_episodes=evaluation_episodes,
        target_return=solved_at(env) if target_return is None else target_return,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        num_learners=num_learners,
        learner_gpu=learner_gpu,
        seed=seed,
    )


def adapted(config: PPOConfig, env: str, num_envs: int) -> PPOConfig:
    """What is recommended for `env`, and what differs from the defaults in `config`."""
    given, default = dataclasses.asdict(config), dataclasses.asdict(PPOConfig())
    chosen = {name: value for name, value in given.items() if value != default[name]}
    best = dataclasses.asdict(recommended(env))
    return PPOConfig(**{**best, "batch_size": num_envs, **chosen})
