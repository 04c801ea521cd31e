"""The options of IMPALA."""

from __future__ import annotations

from dataclasses import dataclass

from lpml.errors import UsageError


@dataclass(frozen=True)
class ImpalaConfig:
    """What an IMPALA agent is made of, and how it learns."""

    hidden: tuple[int, ...] = (64,)
    """Widths of the layers before the recurrent core, or before the heads."""
    lstm: int = 64
    """Width of the recurrent core; 0 = none, and the policy has no memory."""

    sequence_length: int = 20
    """T: steps of a rollout."""
    batch_size: int = 16
    """B: rollouts of an update."""
    queue_batches: int = 2
    """Batches that may wait for the learner. More let actors run on, with older parameters."""

    discount: float = 0.99
    """Gamma, per step."""
    reward_scale: float | None = None
    """Rewards are multiplied by it. Discounted returns of order 1 to 10 are learned soonest.
    `None` = 1; the program takes 0.1 on CartPole-v1."""
    entropy_cost: float = 0.01
    """Weight of the policy's entropy, in units of scaled rewards."""
    baseline_cost: float = 0.5
    """Weight of the loss of the values."""
    trace_lambda: float = 1.0
    """Of V-trace: less than 1 trusts the value function more."""
    clip_rho: float = 1.0
    """Rho-bar: which policy the values are those of; `inf` = the target policy's."""
    clip_c: float = 1.0
    """C-bar: how far corrections reach back."""

    learning_rate: float = 2e-3
    """Of RMSProp, at the start."""
    decay_updates: int = 0
    """Updates over which the learning rate falls to 0 in a line; 0 = it stays."""
    rms_decay: float = 0.99
    """Of the mean of squared gradients, per update."""
    rms_epsilon: float = 1e-8
    """Added to the root of that mean."""
    max_gradient_norm: float = 1.0
    """Longer gradients are shortened to it. The first ones are long; unshortened they slow
    RMSProp down for hundreds of updates."""

    def __post_init__(self) -> None:
        for name in ("sequence_length", "batch_size", "queue_batches"):
            if getattr(self, name) < 1:
                raise UsageError(f"ImpalaConfig: {name}={getattr(self, name)}; give at least 1")
        if self.lstm < 0 or self.decay_updates < 0 or any(width < 1 for width in self.hidden):
            raise UsageError(
                f"ImpalaConfig: hidden={self.hidden}, lstm={self.lstm}, decay_updates="
                f"{self.decay_updates}; give widths of at least 1, and 0 for none"
            )
        if not 0 <= self.discount <= 1 or not 0 <= self.trace_lambda <= 1:
            raise UsageError(
                f"ImpalaConfig: discount={self.discount}, trace_lambda={self.trace_lambda}; give "
                "numbers in [0, 1]"
            )
