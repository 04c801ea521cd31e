"""How DQN learns: one update of the action values, as pure functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lpml.agents.dqn import losses
from lpml.agents.dqn.config import DQNConfig
from lpml.agents.dqn.networks import QNetwork
from lpml.nodes import Params
from lpml.nodes.learning import Algorithm, Experience, Update


class DQNState(NamedTuple):
    """All that an update changes."""

    params: Params
    target_params: Params
    opt_state: Any
    updates: jax.Array
    """`[]` int32, made so far."""


def make_algorithm(network: QNetwork, config: DQNConfig) -> Algorithm:
    """DQN for `Transition`s. Its variables are `{"params", "updates"}`."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm), optax.adam(config.learning_rate)
    )

    def init(key: jax.Array) -> DQNState:
        params = network.init(key)
        # a copy: the state may be donated, and no buffer twice
        target = jax.tree.map(jnp.copy, params)
        return DQNState(params, target, optimizer.init(params), jnp.int32(0))

    def loss(params: Params, target: Params, experience: Experience) -> tuple[jax.Array, Any]:
        data = experience.data
        q_tm1 = network.apply(params, data.observation)
        target_q_t = network.apply(target, data.next_observation)
        selector_q_t = target_q_t
        if config.double:
            selector_q_t = network.apply(params, data.next_observation)
        error = jax.vmap(losses.td_error)(
            q_tm1, data.action, data.reward, data.discount, target_q_t, selector_q_t
        )
        weights = losses.importance_weights(
            experience.probability, experience.size, config.importance_exponent
        )
        value = (weights * losses.huber(error, config.huber_delta)).mean()
        return value, (error, q_tm1)

    def update(state: DQNState, experience: Experience) -> tuple[DQNState, Update]:
        (value, (error, q)), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.target_params, experience
        )
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes types
            steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, steps)
        updates = state.updates + 1
        copies = updates % config.target_period == 0
        target = jax.tree.map(
            lambda new, old: jnp.where(copies, new, old), params, state.target_params
        )
        size = jnp.abs(error)
        metrics = {
            "loss": value,
            "q": q.mean(),
            "td_error": size.mean(),
            "gradient_norm": jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads))),
        }
        state = DQNState(params, target, opt_state, updates)
        return state, Update(metrics, size + config.min_priority)

    def variables(state: DQNState) -> Params:
        return {"params": state.params, "updates": state.updates}

    return Algorithm(init, update, variables)
