"""The terms of PPO's loss, and the advantages it weighs actions by: pure functions.

Letters: T is the time in a window of rows, `[...]` any shape. A row that only holds the last
observation of an episode is not `valid`: nothing follows from it, but its value is the bootstrap
of the row before.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def generalised_advantages(
    r_t: jax.Array,
    discount_t: jax.Array,
    v_t: jax.Array,
    valid: jax.Array,
    lambda_: float,
) -> jax.Array:
    """GAE(gamma, lambda) over one window of rows that may run across the ends of episodes.

    `A_t = delta_t + gamma lambda A_(t+1)` with `delta_t = r_t + gamma v_(t+1) - v_t`; the sum ends
    where an episode does, in a last observation, or where the window ends.

    Args:
      r_t: `[T]`, what followed the action of row t.
      discount_t: `[T]`: gamma, or 0 where the action ended the episode for good.
      v_t: `[T + 1]`, values of the observations.
      valid: `[T]`, whether row t has an action.
      lambda_: in [0, 1].

    Returns:
      `[T]`; 0 in rows that are not valid.

    Reference: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation" (2016), eq. (16).
    """
    delta_t = r_t + discount_t * v_t[1:] - v_t[:-1]

    def backward(
        a_tp1: jax.Array, row: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        delta, discount, has_action = row
        # A cut-off episode has its discount: the 0 of the row after it ends the sum.
        a_t = jnp.where(has_action, delta + discount * lambda_ * a_tp1, 0.0)
        return a_t, a_t

    start = jnp.zeros((), delta_t.dtype)
    _, advantages = jax.lax.scan(backward, start, (delta_t, discount_t, valid), reverse=True)
    return advantages


def clipped_surrogate(log_ratio: jax.Array, advantage: jax.Array, clip_ratio: float) -> jax.Array:
    """`-min(r A, clip(r, 1 - epsilon, 1 + epsilon) A)`, to be minimised.

    Args:
      log_ratio: `[...]`: `log pi(a|s) - log mu(a|s)`, mu being the policy that acted.
      advantage: `[...]`.
      clip_ratio: epsilon.

    Reference: Schulman et al., "Proximal Policy Optimization Algorithms" (2017), eq. (7).
    """
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def value_loss(
    value: jax.Array, target: jax.Array, old_value: jax.Array, value_clip: float
) -> jax.Array:
    """`(v - target)^2 / 2`, or the worse of it and that of a value near the old one.

    Args:
      value: `[...]`.
      target: `[...]`: the return, advantage plus old value.
      old_value: `[...]`: before the update.
      value_clip: how far a value may leave the old one; 0 = any distance.

    Reference: Schulman et al. (2017), L^VF of eq. (9); the clipped one is that of the authors'
    code, in the words of Engstrom et al., "Implementation Matters in Deep Policy Gradients"
    (2020), section 2.
    """
    loss = (value - target) ** 2
    if value_clip:
        near = old_value + jnp.clip(value - old_value, -value_clip, value_clip)
        loss = jnp.maximum(loss, (near - target) ** 2)
    return 0.5 * loss


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean `[]` of `x` where `mask`, both `[...]`; 0 where there is none."""
    total = jnp.sum(jnp.where(mask, x, 0.0))
    return total / jnp.maximum(jnp.sum(mask, dtype=x.dtype), 1.0)


def standardise(x: jax.Array, mask: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """`x` `[...]` less its mean, over its standard deviation, both where `mask` only."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon)


def approximate_kl(log_ratio: jax.Array) -> jax.Array:
    """`(r - 1) - log r`, whose mean under mu is KL(mu, pi); never negative.

    Args:
      log_ratio: `[...]`, as in `clipped_surrogate`.

    Reference: Schulman, "Approximating KL Divergence" (2020), estimator k3.
    """
    return jnp.expm1(log_ratio) - log_ratio
