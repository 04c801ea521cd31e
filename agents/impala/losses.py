"""V-trace and the three losses of IMPALA, as pure functions of one rollout.

T is the number of steps of the rollout. A row that is no step (it holds the last observation of an
episode, and the next row begins another) has importance ratio 0: its target is its own value, and
no correction passes it.

Reference: Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted
Actor-Learner Architectures", ICML 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class VTrace(NamedTuple):
    """What V-trace says of the steps of a rollout; no gradient flows through it."""

    targets: jax.Array
    """`[T]`: v_s, what the value of the observation should be; equation (1)."""
    advantages: jax.Array
    """`[T]`: rho_s (r_s + gamma v_{s+1} - V(x_s)), the weight of the action; section 4.2."""


def vtrace(
    values: jax.Array,
    rewards: jax.Array,
    discounts: jax.Array,
    ratios: jax.Array,
    *,
    lambda_: float = 1.0,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
) -> VTrace:
    """Off-policy corrected value targets, and the advantages for the policy gradient.

    Remark 1 of the paper: `v_s = V_s + delta_s + gamma c_s (v_{s+1} - V_{s+1})`.

    Args:
      values: `[T + 1]`: V of each observation, the one after the last step too.
      rewards: `[T]`: what followed each action.
      discounts: `[T]`: gamma, or 0 where the action ended the episode for good.
      ratios: `[T]`: pi(a|x) / mu(a|x), target over behaviour policy; 0 in a row that is no step.
      lambda_: factor of c, in [0, 1]; remark 2.
      clip_rho: rho-bar, at least `clip_c`.
      clip_c: c-bar.
    """
    values = jax.lax.stop_gradient(values)
    ratios = jax.lax.stop_gradient(ratios)
    rho = jnp.minimum(ratios, clip_rho)
    c = lambda_ * jnp.minimum(ratios, clip_c)
    delta = rho * (rewards + discounts * values[1:] - values[:-1])

    def back(
        correction: jax.Array, row: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        delta_s, decay_s = row
        correction = delta_s + decay_s * correction
        return correction, correction

    start = jnp.zeros((), values.dtype)
    _, corrections = jax.lax.scan(back, start, (delta, discounts * c), reverse=True)
    targets = values[:-1] + corrections
    following = jnp.append(targets[1:], values[-1])
    # Lambda mixes the bootstrap too, so that lambda 0 is one-step actor-critic.
    following = lambda_ * following + (1 - lambda_) * values[1:]
    return VTrace(targets, rho * (rewards + discounts * following - values[:-1]))


def policy_gradient_loss(
    logits: jax.Array, actions: jax.Array, advantages: jax.Array, valid: jax.Array
) -> jax.Array:
    """`- sum_s A_s log pi(a_s | x_s)`, whose gradient is that of section 4.2.

    Args:
      logits: `[T, A]`.
      actions: `[T]` integers.
      advantages: `[T]`; no gradient flows through them.
      valid: `[T]`: 1 where there is a step, else 0.
    """
    chosen = log_probability(logits, actions)
    return -jnp.sum(valid * jax.lax.stop_gradient(advantages) * chosen)


def baseline_loss(values: jax.Array, targets: jax.Array, valid: jax.Array) -> jax.Array:
    """`sum_s (v_s - V(x_s))^2 / 2`, for values, targets and valid `[T]`."""
    return 0.5 * jnp.sum(valid * jnp.square(jax.lax.stop_gradient(targets) - values))


def entropy_loss(logits: jax.Array, valid: jax.Array) -> jax.Array:
    """`sum_s sum_a pi(a | x_s) log pi(a | x_s)`: less where the policy is more random."""
    log_pi = jax.nn.log_softmax(logits)
    return jnp.sum(valid * jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1))


def log_probability(logits: jax.Array, actions: jax.Array) -> jax.Array:
    """`[T]`: of actions `[T]` under logits `[T, A]`."""
    log_pi = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_pi, actions[:, None], axis=-1)[:, 0]
