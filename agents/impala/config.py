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
    reward_scale: float = 0.1
    """Rewards are multiplied by it. Values of order 1 to 10 are learned soonest."""
    entropy_cost: float = 0.003
    baseline_cost: float = 0.5
    lambda_: float = 1.0
    """Of V-trace: less than 1 trusts the value function more."""
    clip_rho: float = 1.0
    """Rho-bar: which policy the values are those of; `inf` = the target policy's."""
    clip_c: float = 1.0
    """C-bar: how far corrections reach back."""

    learning_rate: float = 3e-3
    decay_updates: int = 0
    """Updates over which the learning rate falls to 0 in a line; 0 = it stays."""
    rms_decay: float = 0.99
    rms_epsilon: float = 1e-8
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sequence_length", "batch_size", "queue_batches"):
            if getattr(self, name) < 1:
                raise UsageError(f"ImpalaConfig: {name}={getattr(self, name)}; give at least 1")
        if self.lstm < 0 or self.decay_updates < 0 or any(width < 1 for width in self.hidden):
            raise UsageError(
                f"ImpalaConfig: hidden={self.hidden}, lstm={self.lstm}, decay_updates="
                f"{self.decay_updates}; give widths of at least 1, and 0 for none"
            )
        if not 0 <= self.discount <= 1 or not 0 <= self.lambda_ <= 1:
            raise UsageError(
                f"ImpalaConfig: discount={self.discount}, lambda_={self.lambda_}; give numbers in "
                "[0, 1]"
            )
