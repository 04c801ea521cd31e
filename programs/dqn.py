"""DQN spread over nodes: actors fill a prioritised replay, one learner draws from it.

References: those of `lpml.agents.dqn`; Horgan et al., "Distributed Prioritized Experience Replay",
ICLR 2018 (many actors, one learner); Hoffman et al., "Acme: A Research Framework for Distributed
Reinforcement Learning", 2020 (a limiter holds the two in proportion).
"""

from __future__ import annotations

import lpml
from lpml.agents.dqn import DQNBuilder, DQNConfig
from lpml.agents.environments import solved_at
from lpml.programs.actor_learner import actor_learner


def program(
    env: str = "CartPole-v1",
    num_actors: int = 2,
    envs_per_actor: int = 8,
    target_return: float | None = None,
    max_actor_steps: int | None = 200_000,
    max_seconds: float | None = None,
    num_replays: int = 1,
    num_inference_servers: int = 0,
    evaluation_episodes: int = 20,
    num_learners: int = 1,
    learner_gpu: float = 0,
    seed: int = 0,
    config: DQNConfig = DQNConfig(),  # noqa: B008 - frozen
) -> lpml.Program:
    """DQN on CartPole-v1 or another environment with discrete actions; stops when it is solved.

    Args:
      env: any name of an environment: CartPole-v1, Catch, jax/GridWorld, envpool/Pong-v5.
      num_actors: nodes that act for a learner.
      envs_per_actor: environments in each, stepped together.
      target_return: ends the program when the evaluator's mean return reaches it; without it 475
        on CartPole-v1 and 0.95 on Catch, elsewhere never.
      max_actor_steps: ends the program after so many steps of all actors.
      max_seconds: ends the program after so long.
      num_replays: nodes over which the replay of a learner is spread.
      num_inference_servers: nodes that choose actions for those of a learner; 0 = each its own.
      evaluation_episodes: of which the evaluator takes the mean return.
      num_learners: nodes that learn, each from actors of its own; after each step of theirs all
        go on from the mean of their parameters.
      learner_gpu: accelerators of a learner, a fraction perhaps; 0 = it learns on the CPU.
      seed: of everything that is drawn.
      config: options of the agent.
    """
    return actor_learner(
        DQNBuilder(config),
        env,
        num_actors=num_actors,
        envs_per_actor=envs_per_actor,
        num_replays=num_replays,
        num_inference_servers=num_inference_servers,
        evaluation_episodes=evaluation_episodes,
        target_return=solved_at(env) if target_return is None else target_return,
        max_actor_steps=max_actor_steps,
        max_seconds=max_seconds,
        num_learners=num_learners,
        learner_gpu=learner_gpu,
        seed=seed,
    )
