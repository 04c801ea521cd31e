"""Options of DQN."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lpml.errors import UsageError


@dataclass(frozen=True)
class DQNConfig:
    """Options of DQN; the defaults solve CartPole-v1.

    Raises:
      UsageError: a number is out of range.
    """

    # The network: hidden layers; images of bytes pass the convolutions of Mnih et al. first.
    hidden_sizes: tuple[int, ...] = (64, 64)
    # Whether value and advantages have a stream each (Wang et al.).
    dueling: bool = True
    # Whether the online network chooses the action that the target network values (van Hasselt).
    double: bool = True
    # Gamma, per action.
    discount: float = 0.99
    # Actions between the two observations of an item.
    n_step: int = 10
    # Of Adam.
    learning_rate: float = 1e-3
    # Longest gradient; longer ones are scaled down.
    max_gradient_norm: float = 10.0
    # Errors beyond it count linearly, not squared.
    huber_delta: float = 1.0
    # Updates from one copy of the parameters to the target network to the next.
    target_period: int = 50
    # Items of one update.
    batch_size: int = 128
    # Updates in one call of the device.
    updates_per_step: int = 4
    # Items that the replay keeps; few, so that what the agent does now is soon drawn often.
    replay_size: int = 10_000
    # Items before the first update.
    min_replay_size: int = 1_000
    # How often an item is sampled on average: batch_size * updates / steps.
    samples_per_insert: float = 32.0
    # Power of the priorities in the probabilities; 0 = uniform.
    priority_exponent: float = 0.6
    # Beta, the power of the importance weights; 0 = none.
    importance_exponent: float = 0.2
    # Added to the absolute errors that become priorities, so that no item is forgotten.
    min_priority: float = 1e-3
    # Share of random actions at first.
    epsilon_begin: float = 1.0
    # Share of random actions in the end, of the environment that explores most.
    epsilon_end: float = 0.05
    # Steps of all actors together, after the first update, over which the share falls.
    epsilon_steps: int = 8_000
    # How much less other environments explore in the end: epsilon_end ** (1 + spread) for the one
    # that explores least; 0 = all alike, 7 = as in Horgan et al.
    epsilon_spread: float = 0.0

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            self._check(name, "a number of at least 1", getattr(self, name) >= 1)
        for name in _SHARES:
            self._check(name, "a number in [0, 1]", 0 <= getattr(self, name) <= 1)
        for name in _POSITIVE:
            self._check(name, "a number above 0", 0 < getattr(self, name) < math.inf)
        for name in ("priority_exponent", "epsilon_spread"):
            self._check(name, "a number of at least 0", 0 <= getattr(self, name) < math.inf)
        sizes = all(size >= 1 for size in self.hidden_sizes)
        self._check("hidden_sizes", "sizes of at least 1", sizes)

    def _check(self, name: str, wanted: str, good: bool) -> None:
        if not good:
            raise UsageError(f"DQNConfig: {name}={getattr(self, name)}; give {wanted}")


_AT_LEAST_ONE = (
    "n_step",
    "target_period",
    "batch_size",
    "updates_per_step",
    "replay_size",
    "min_replay_size",
    "epsilon_steps",
)
_SHARES = ("discount", "importance_exponent", "epsilon_begin", "epsilon_end")
_POSITIVE = (
    "learning_rate",
    "max_gradient_norm",
    "huber_delta",
    "samples_per_insert",
    "min_priority",
)
