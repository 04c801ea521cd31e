"""One update of PPO: a batch of rollouts, several epochs of minibatches, all of it traceable.

Letters: B windows of T + 1 rows; N = B T rows that may have an action, of which a minibatch M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lpml.agents import normalisation
from lpml.agents.normalisation import RunningStatistics
from lpml.agents.ppo import losses
from lpml.agents.ppo.config import PPOConfig
from lpml.agents.ppo.heads import array_spec
from lpml.agents.ppo.networks import Network
from lpml.agents.torsos import are_frames
from lpml.nodes.data_parallel import spread
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.replay import Sequence, Step
from lpml.nodes.roles import Params

_LONGEST = 1e7  # rows after which the statistics of observations forget
_RETURNS = 5e4  # the same for returns, which move with the policy


class Variables(NamedTuple):
    """What the policy needs."""

    params: Params
    observations: RunningStatistics | None
    """To normalise by; `None` = observations are taken as they are."""


class PPOState(NamedTuple):
    """All that an update changes."""

    params: Params
    optimizer: Any
    observations: RunningStatistics | None
    returns: RunningStatistics | None
    key: jax.Array
    updates: jax.Array
    """`[]` int32."""


class Rows(NamedTuple):
    """What the loss is made of, `[N, ...]`."""

    observation: Any
    """Normalised."""
    raw: jax.Array
    log_prob: jax.Array
    """Of the policy that acted."""
    advantage: jax.Array
    target: jax.Array
    """Of the value; normalised, where returns are, as the next."""
    old_value: jax.Array
    valid: jax.Array


def observe(observations: RunningStatistics | None, observation: Any) -> Any:
    """Observations `[..., *shape]` as the network takes them: as they are, or normalised."""
    if observations is None:
        return observation
    return normalisation.normalise(observations, observation)


def make_optimizer(config: PPOConfig) -> optax.GradientTransformation:
    """Adam on clipped gradients, with a rate that falls from update to update."""
    per_update = config.epochs * config.minibatches
    updates = config.anneal_steps / config.steps_per_update

    def rate(count: Any) -> Any:  # a schedule of optax
        left = 1.0 - (count // per_update).astype(jnp.float32) / max(updates, 1.0)
        return config.learning_rate * jnp.maximum(left, config.anneal_to)

    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adam(rate if updates else config.learning_rate, eps=config.adam_epsilon),
    )
    return optax.flatten(optimizer)  # one vector compiles faster than many arrays


def make_algorithm(config: PPOConfig, spec: EnvironmentSpec, network: Network) -> Algorithm:
    """PPO as pure functions.

    `Experience.data` is a `Sequence` of `Step`s `[B, T + 1, ...]`, windows over the stream of one
    environment; `extras` are those of the policy (`builder.extras`). A row that is not valid holds
    the last observation of an episode. The last row of a window only lends its observation.
    """
    optimizer = make_optimizer(config)
    normalises = config.normalise_observations and not are_frames(spec.observation)

    def init(key: jax.Array) -> PPOState:
        key, network_key = jax.random.split(key)
        params = network.init(network_key)
        scalar = array_spec()
        return PPOState(
            params=params,
            optimizer=optimizer.init(params),
            observations=normalisation.init(spec.observation) if normalises else None,
            returns=normalisation.init(scalar) if config.normalise_returns else None,
            key=key,
            updates=jnp.zeros((), jnp.int32),
        )

    def update(state: PPOState, experience: Experience) -> tuple[PPOState, Update]:
        key, order_key, draw_key = jax.random.split(state.key, 3)
        sequence: Sequence = experience.data
        valid = sequence.mask & sequence.steps.extras["valid"]
        rows, returns, metrics = make_rows(config, network, state, sequence.steps, valid)

        def step(carry: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, Mapping[str, Any]]:
            params, optimizer_state = carry
            chosen, step_key = given
            minibatch = spread(jax.tree.map(lambda x: x[chosen], rows))
            grads, parts = jax.grad(loss, has_aux=True)(
                params, config, network, minibatch, step_key
            )
            # As one vector, of which the optimiser takes the norm as well: it is computed once.
            flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])
            parts["grad_norm"] = jnp.sqrt(jnp.sum(flat**2))
            with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes types
                changes, optimizer_state = optimizer.update(grads, optimizer_state, params)
            return (optax.apply_updates(params, changes), optimizer_state), parts

        # Each epoch is an order of all rows; the steps of all epochs are one loop.
        bits = jax.random.bits(order_key, (config.epochs, config.steps_per_update))
        steps = config.epochs * config.minibatches
        order = jnp.argsort(bits, axis=1).reshape(steps, -1)
        keys = jax.random.split(draw_key, steps)
        carry = (state.params, state.optimizer)
        (params, optimizer_state), reports = jax.lax.scan(step, carry, (order, keys))
        observations = state.observations
        if observations is not None:
            # Only now: all of this update sees what the actors saw, so that ratios begin at 1.
            seen = jax.tree.map(lambda x: x[:, :-1], sequence.steps.observation)
            observations = normalisation.update(
                observations, seen, valid[:, :-1], max_rows=_LONGEST
            )
        state = PPOState(params, optimizer_state, observations, returns, key, state.updates + 1)
        return state, Update({**metrics, **jax.tree.map(jnp.mean, reports)}, None)

    def variables(state: PPOState) -> Variables:
        return Variables(state.params, state.observations)

    return Algorithm(init, update, variables)


def make_rows(
    config: PPOConfig, network: Network, state: PPOState, steps: Step, valid: jax.Array
) -> tuple[Rows, RunningStatistics | None, dict[str, jax.Array]]:
    """Advantages and targets of a batch `[B, T + 1, ...]` under the parameters of `state`.

    Returns:
      The rows `[N, ...]` in the order of the batch, the statistics of returns with those of the
      batch, and metrics.
    """
    observation = observe(state.observations, steps.observation)
    outputs, predicted = network.apply(state.params, observation)
    returns = state.returns
    values = predicted if returns is None else normalisation.denormalise(returns, predicted)
    acted = valid[:, :-1]

    def advantages_of(r: jax.Array, d: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        return losses.generalised_advantages(r, config.discount * d, v, w, config.gae_lambda)

    advantage = jax.vmap(advantages_of)(steps.reward[:, :-1], steps.discount[:, :-1], values, acted)
    old_value = values[:, :-1]
    target = advantage + old_value
    residual = losses.masked_mean(advantage**2, acted)
    spread = losses.masked_mean((target - losses.masked_mean(target, acted)) ** 2, acted)
    raw = steps.extras.get("raw", steps.action)
    log_prob = steps.extras["log_prob"]
    lag = network.head.log_prob(outputs, raw) - log_prob
    metrics = {
        "lag_kl": losses.masked_mean(losses.approximate_kl(lag)[:, :-1], acted),
        "explained_variance": 1.0 - residual / jnp.maximum(spread, 1e-8),
        "valid": jnp.mean(acted.astype(jnp.float32)),
    }
    if returns is not None:
        returns = normalisation.update(returns, target, acted, max_rows=_RETURNS)
        # without a limit: a target that is cut off would be wrong
        target, old_value = (
            normalisation.normalise(returns, x, limit=float("inf")) for x in (target, old_value)
        )
    first = jax.tree.map(lambda x: x[:, :-1], (observation, raw, log_prob))
    rows = Rows(first[0], first[1], first[2], advantage, target, old_value, acted)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows), returns, metrics


def loss(
    params: Params, config: PPOConfig, network: Network, rows: Rows, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L^(CLIP+VF+S) of Schulman et al. (2017), eq. (9), negated; over rows `[M, ...]`.

    Args:
      params: to differentiate by.
      config, network: of the agent.
      rows: of one minibatch.
      key: for entropies that are estimated; consumed.

    Returns:
      The loss `[]`, and its parts.
    """
    outputs, value = network.apply(params, rows.observation)
    advantage = rows.advantage
    if config.normalise_advantages:
        advantage = losses.standardise(advantage, rows.valid)
    log_ratio = network.head.log_prob(outputs, rows.raw) - rows.log_prob
    log_ratio = jnp.where(rows.valid, log_ratio, 0.0)  # no gradient of an overflow
    surrogate = losses.clipped_surrogate(log_ratio, advantage, config.clip_ratio)
    value_losses = losses.value_loss(value, rows.target, rows.old_value, config.value_clip)
    parts = {
        "policy_loss": losses.masked_mean(surrogate, rows.valid),
        "value_loss": losses.masked_mean(value_losses, rows.valid),
        "entropy": losses.masked_mean(network.head.entropy(outputs, key), rows.valid),
    }
    total = (
        parts["policy_loss"]
        + config.value_cost * parts["value_loss"]
        - config.entropy_cost * parts["entropy"]
    )
    left = jnp.abs(jnp.expm1(log_ratio)) > config.clip_ratio
    parts["clip_fraction"] = losses.masked_mean(left.astype(jnp.float32), rows.valid)
    parts["kl"] = losses.masked_mean(losses.approximate_kl(log_ratio), rows.valid)
    return total, {"loss": total, **parts}
