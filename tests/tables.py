"""Every launcher and agent, one row each: what is listed here goes through every general test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

LAUNCHERS = ("local_mt", "local_mp", "test")


class AgentRow(NamedTuple):
    """An agent, in a size that learns Catch in a moment."""

    builder: str
    """`module:class`, imported by the test that wants it."""
    options: Mapping[str, Any]
    """Of its config, besides the defaults."""
    steps: int
    """In 8 environments."""
    enough: float
    """The mean return of 50 greedy episodes after them; about -0.6 before, 1 at best."""


AGENTS = {
    "dqn": AgentRow(
        "lpml.agents.dqn:DQNBuilder",
        {"hidden_sizes": (32,), "n_step": 3, "epsilon_steps": 2000, "min_replay_size": 200},
        steps=4000,
        enough=0.6,
    ),
    "impala": AgentRow(
        "lpml.agents.impala:ImpalaBuilder",
        {"hidden": (32,), "lstm": 0, "sequence_length": 9, "batch_size": 8, "learning_rate": 5e-3},
        steps=20_000,
        enough=0.6,
    ),
    "ppo": AgentRow(
        "lpml.agents.ppo:PPOBuilder",
        {"hidden": (32,)},
        steps=20_000,
        enough=0.6,
    ),
}
