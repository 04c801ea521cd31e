"""The losses of DQN: pure functions of one example; `jax.vmap` makes them functions of many.

Letters: A actions, B batch. `tm1` is the time of the action, `t` that of the arrival; `discount_t`
holds every factor of gamma of an n-step transition, and is 0 at the end of an episode.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def td_error(
    q_tm1: jax.Array,
    action_tm1: jax.Array,
    reward_t: jax.Array,
    discount_t: jax.Array,
    target_q_t: jax.Array,
    selector_q_t: jax.Array,
) -> jax.Array:
    """`r + d * Q'(s', argmax_a S(s', a)) - Q(s, a)`, without gradient through the target.

    With the online network as selector S it is the double estimate of van Hasselt, Guez, Silver
    (2016), `Y^DoubleDQN`; with the target network Q' itself, that of Mnih et al. (2015), eq. (2).

    Args:
      q_tm1: `[A]`, values where the action was taken.
      action_tm1: `[]` integer.
      reward_t: `[]`, of n steps.
      discount_t: `[]`, gamma^n, or 0.
      target_q_t: `[A]`, values of the target network at the arrival.
      selector_q_t: `[A]`, the values that choose the action there.

    Returns:
      `[]`.
    """
    if q_tm1.ndim != 1 or q_tm1.shape != target_q_t.shape or q_tm1.shape != selector_q_t.shape:
        raise ValueError(
            f"td_error: values of {q_tm1.shape}, {target_q_t.shape} and {selector_q_t.shape}; "
            "give three of shape [A], and jax.vmap over a batch"
        )
    target = reward_t + discount_t * target_q_t[selector_q_t.argmax()]
    return jax.lax.stop_gradient(target) - q_tm1[action_tm1]


def huber(error: jax.Array, delta: float = 1.0) -> jax.Array:
    """Half the square up to `delta`, then linear with that slope.

    Huber, "Robust Estimation of a Location Parameter" (1964); the clipped error of Mnih et al.
    (2015).
    """
    size = jnp.abs(error)
    quadratic = jnp.minimum(size, delta)
    return 0.5 * quadratic**2 + delta * (size - quadratic)


def importance_weights(probability: jax.Array, size: jax.Array, exponent: float) -> jax.Array:
    """`w_i = (N P(i))^-beta / max_j w_j`, Schaul et al. (2016), section 3.4, of one batch.

    Args:
      probability: `[B]`, P, of each draw.
      size: `[]`, N, items in the table.
      exponent: beta.

    Returns:
      `[B]`, in (0, 1].
    """
    weights = (size * probability) ** -exponent
    return weights / weights.max()
