"""The options of PPO, and those that are known to solve some environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lpml.agents.environments import task_of
from lpml.errors import UsageError


@dataclass(frozen=True)
class PPOConfig:
    """Numbers of PPO. One update learns from `batch_size * unroll_length` steps.

    Raises:
      UsageError: a number is out of range, or the steps do not divide into the minibatches.
    """

    # Rollouts
    unroll_length: int = 32
    """T: steps of one environment in one window."""
    batch_size: int = 8
    """B: windows of one update; as many as environments keeps data at most one update old in the
    synchronous loop."""
    queued_batches: int = 1
    """Batches that may wait for the learner before actors have to: bounds how old data gets."""

    # Advantages
    discount: float = 0.99
    """gamma."""
    gae_lambda: float = 0.95
    """lambda: 0 = one-step advantages, 1 = Monte Carlo."""

    # Loss
    clip_ratio: float = 0.2
    """epsilon: how far the probability ratio may leave 1 and still bring something."""
    value_clip: float = 0.0
    """How far a value may leave the one before the update; 0 = any distance."""
    value_cost: float = 0.5
    entropy_cost: float = 0.01
    normalise_advantages: bool = True
    """To mean 0 and deviation 1 in each minibatch."""

    # Optimisation
    epochs: int = 4
    """Passes over a batch."""
    minibatches: int = 4
    """Gradient steps of one pass."""
    learning_rate: float = 1e-3
    """Of Adam."""
    anneal_steps: int = 0
    """Environment steps over which the learning rate falls to `anneal_to`; 0 = never falls."""
    anneal_to: float = 0.05
    """Last learning rate, as a fraction of the first."""
    max_grad_norm: float = 0.5
    adam_epsilon: float = 1e-5

    # Normalisation
    normalise_observations: bool = True
    """By running mean and variance, which travel with the parameters; frames of pixels are not."""
    normalise_returns: bool = True
    """The network predicts values in standard deviations of the returns, so that losses are of one
    size whatever the rewards are."""

    # Network
    hidden: tuple[int, ...] = (64, 64)
    """Units of each layer."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    shared_torso: bool = False
    """Whether policy and value share their hidden layers."""
    squash: bool = True
    """Bounded continuous actions: through a tanh, else cut off at the bounds."""
    initial_std: float = 0.6
    """Of a continuous policy, where 1 is half the range of bounded actions."""

    def __post_init__(self) -> None:
        counts = ("unroll_length", "batch_size", "queued_batches", "epochs", "minibatches")
        for name in counts:
            if getattr(self, name) < 1:
                raise UsageError(f"PPOConfig({name}={getattr(self, name)}): give at least 1")
        for name in ("discount", "gae_lambda", "anneal_to"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"PPOConfig({name}={getattr(self, name)}): give one in [0, 1]")
        for name in ("clip_ratio", "learning_rate", "max_grad_norm", "adam_epsilon", "initial_std"):
            if not getattr(self, name) > 0:
                raise UsageError(f"PPOConfig({name}={getattr(self, name)}): give one above 0")
        for name in ("value_clip", "value_cost", "entropy_cost", "anneal_steps"):
            if getattr(self, name) < 0:
                raise UsageError(f"PPOConfig({name}={getattr(self, name)}): give 0 or more")
        if self.steps_per_update % self.minibatches:
            raise UsageError(
                f"PPOConfig: batch_size={self.batch_size} windows of "
                f"unroll_length={self.unroll_length} steps do not divide into "
                f"minibatches={self.minibatches}; choose numbers that do"
            )

    @property
    def steps_per_update(self) -> int:
        """Rows of one batch, those without an action included."""
        return self.batch_size * self.unroll_length


_KNOWN: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"anneal_steps": 300_000},
    "Catch": {"anneal_steps": 300_000},
    "Pendulum-v1": {
        "learning_rate": 5e-4,
        "unroll_length": 128,
        "discount": 0.95,
        "gae_lambda": 0.9,
        "entropy_cost": 0.0,
        "epochs": 10,
        "minibatches": 8,
        "anneal_steps": 300_000,
        "squash": False,
    },
}


_PHYSICS = {"learning_rate": 3e-4, "unroll_length": 128}
"""Of brax and MuJoCo Playground: an episode is long, and most of it is one phase of the task."""


def recommended(environment: str) -> PPOConfig:
    """The options that the agents table was made with; the defaults for other environments.

    Args:
      environment: its name, such as "Pendulum-v1" or "brax/ant".
    """
    is_physics = environment.startswith(("brax/", "mjx/"))
    return PPOConfig(**_KNOWN.get(task_of(environment), _PHYSICS if is_physics else {}))
