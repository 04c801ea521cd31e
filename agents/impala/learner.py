"""One update of IMPALA from a batch of rollouts, and what actors get of it.

B is the batch, T the steps of a rollout; a rollout has T + 1 rows, the last of which is there for
its observation only.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from lpml.agents.impala.config import ImpalaConfig
from lpml.agents.impala.losses import (
    baseline_loss,
    entropy_loss,
    log_probability,
    policy_gradient_loss,
    vtrace,
)
from lpml.agents.impala.networks import Networks
from lpml.nodes.acting import PolicyState
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.replay import Sequence, Step
from lpml.nodes.roles import Params

Metrics: TypeAlias = dict[str, jax.Array]


class Extras(NamedTuple):
    """What an actor records beside each step: arrays `[..., ...]`, or their shapes and dtypes."""

    valid: Any
    """True; False (0) in the row that holds only the last observation of an episode."""
    logits: Any
    """`[A]`: of mu, the policy that acted."""
    state: PolicyState
    """The recurrent state before the step."""
    updates: Any
    """int32: how many updates had the parameters that acted."""


class Variables(NamedTuple):
    """What actors act with."""

    params: Params
    updates: jax.Array
    """`[]` int32: how many updates they have seen."""


class ImpalaState(NamedTuple):
    """All that an update changes."""

    params: Params
    optimizer: Any
    updates: jax.Array


def make_algorithm(config: ImpalaConfig, networks: Networks) -> Algorithm:
    """How IMPALA learns."""
    optimizer = make_optimizer(config)

    def init(key: jax.Array) -> ImpalaState:
        params = networks.init(key)
        return ImpalaState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(state: ImpalaState, experience: Experience) -> tuple[ImpalaState, Update]:
        data: Sequence = experience.data

        def loss(params: Params) -> tuple[jax.Array, Metrics]:
            return batch_loss(config, networks, params, data)

        gradient, metrics = jax.grad(loss, has_aux=True)(state.params)
        metrics["gradient_norm"] = _norm(gradient)
        metrics |= policy_lag(state.updates, data)
        changes, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, changes)
        return ImpalaState(params, optimizer_state, state.updates + 1), Update(metrics, None)

    def variables(state: ImpalaState) -> Variables:
        return Variables(state.params, state.updates)

    return Algorithm(init, update, variables)


def make_optimizer(config: ImpalaConfig) -> optax.GradientTransformation:
    """RMSProp, as in the paper (appendix G)."""
    rate: Any = config.learning_rate
    if config.decay_updates:
        rate = optax.linear_schedule(config.learning_rate, 0.0, config.decay_updates)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.rmsprop(rate, decay=config.rms_decay, eps=config.rms_epsilon),
    )
    return optax.flatten(optimizer)  # one vector compiles sooner than many arrays


def batch_loss(
    config: ImpalaConfig, networks: Networks, params: Params, data: Sequence
) -> tuple[jax.Array, Metrics]:
    """The loss of a batch of rollouts `[B, T + 1, ...]`: a mean over its steps; section 4.2."""

    def one(steps: Step, mask: Any) -> Metrics:
        return rollout_loss(config, networks, params, steps, mask)

    sums = jax.vmap(one)(data.steps, data.mask)
    count = jnp.maximum(1.0, jnp.sum(sums.pop("steps")))
    metrics = {name: jnp.sum(value) / count for name, value in sums.items()}
    metrics["loss"] = (
        metrics["policy_loss"]
        + config.baseline_cost * metrics["baseline_loss"]
        - config.entropy_cost * metrics["entropy"]
    )
    return metrics["loss"], metrics


def rollout_loss(
    config: ImpalaConfig, networks: Networks, params: Params, steps: Step, mask: Any
) -> Metrics:
    """Sums over the steps of one rollout `[T + 1, ...]`, and how many steps those are."""
    extras: Extras = steps.extras
    is_step = extras.valid & mask
    # A row begins an episode where the row before it was the last; the first row's state is the
    # actor's own, which began the episode if the row did.
    begins = jnp.append(jnp.zeros((1,), bool), ~is_step[:-1])
    start = jax.tree.map(lambda leaf: leaf[0], extras.state)
    heads = networks.unroll(params, steps.observation, begins, start)

    logits, actions = heads.logits[:-1], steps.action[:-1]
    valid = is_step[:-1].astype(jnp.float32)
    ratio = jnp.exp(log_probability(logits, actions) - log_probability(extras.logits[:-1], actions))
    ratio = jnp.where(is_step[:-1], ratio, 0.0)
    scale = 1.0 if config.reward_scale is None else config.reward_scale
    corrected = vtrace(
        heads.value,
        scale * steps.reward[:-1],
        config.discount * steps.discount[:-1],
        ratio,
        lambda_=config.trace_lambda,
        clip_rho=config.clip_rho,
        clip_c=config.clip_c,
    )
    return {
        "policy_loss": policy_gradient_loss(logits, actions, corrected.advantages, valid),
        "baseline_loss": baseline_loss(heads.value[:-1], corrected.targets, valid),
        "entropy": -entropy_loss(logits, valid),
        "importance_ratio": jnp.sum(ratio),
        "value": jnp.sum(valid * heads.value[:-1]),
        "steps": jnp.sum(valid),
    }


def policy_lag(updates: jax.Array, data: Sequence) -> Metrics:
    """By how many updates the policies that acted were behind: the mean and the most."""
    extras: Extras = data.steps.extras
    is_step = (extras.valid & data.mask)[:, :-1]
    lag = jnp.where(is_step, updates - extras.updates[:, :-1], 0).astype(jnp.float32)
    count = jnp.maximum(1.0, jnp.sum(is_step.astype(jnp.float32)))
    return {"policy_lag": jnp.sum(lag) / count, "max_policy_lag": jnp.max(lag)}


def _norm(tree: Params) -> jax.Array:
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))
