"""V-trace and the losses of IMPALA, against their formulas in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents.impala.losses import (
    baseline_loss,
    entropy_loss,
    log_probability,
    policy_gradient_loss,
    vtrace,
)
from tests.agents.small_impala import ACTIONS, Case, equation_1, single_array


def case(seed: int, length: int, *, valid: Any = None) -> Case:
    rng = np.random.default_rng(seed)
    ratios = np.exp(rng.normal(size=length))
    discounts = 0.9 * (rng.random(length) > 0.2)
    return Case(
        values=rng.normal(size=length + 1),
        rewards=rng.normal(size=length),
        discounts=discounts if valid is None else np.where(valid, discounts, 0),
        ratios=ratios if valid is None else np.where(valid, ratios, 0),
    )


def single(case: Case) -> Case:
    return Case(*map(single_array, case))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lambda_": 0.7},
        {"lambda_": 0.0},
        {"clip_rho": 2.0, "clip_c": 0.5},
        {"clip_rho": np.inf, "clip_c": np.inf},
    ],
    ids=str,
)
def test_v_trace_is_equation_1_of_the_paper(options: dict[str, Any]) -> None:
    given = case(3, 17)
    targets, advantages = equation_1(given, **options)
    found = jax.jit(lambda c: vtrace(*c, **options))(single(given))
    np.testing.assert_allclose(found.targets, targets, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-5, atol=1e-5)


def test_on_policy_the_targets_are_the_discounted_rewards_and_the_last_value() -> None:
    given = case(4, 8)._replace(ratios=np.ones(8))
    returns, following = np.zeros(8), given.values[-1]
    for t in reversed(range(8)):
        returns[t] = following = given.rewards[t] + given.discounts[t] * following
    found = vtrace(*single(given))
    np.testing.assert_allclose(found.targets, returns, rtol=1e-5, atol=1e-5)


def test_v_trace_is_that_of_rlax() -> None:
    rlax = pytest.importorskip("rlax")
    given = single(case(5, 20))
    for lambda_ in (1.0, 0.8):
        with jax.numpy_dtype_promotion("standard"):
            theirs = rlax.vtrace_td_error_and_advantage(
                given.values[:-1], given.values[1:], *given[1:], lambda_
            )
        ours = vtrace(*given, lambda_=lambda_)
        np.testing.assert_allclose(ours.advantages, theirs.pg_advantage, rtol=1e-5, atol=1e-5)
        errors = ours.targets - given.values[:-1]
        np.testing.assert_allclose(errors, theirs.errors, rtol=1e-5, atol=1e-5)


def test_the_losses_are_their_formulas_in_float64() -> None:
    rng = np.random.default_rng(6)
    logits, actions = rng.normal(size=(9, ACTIONS)), rng.integers(ACTIONS, size=9)
    advantages, values, targets = rng.normal(size=(3, 9))
    valid = np.asarray(rng.random(9) > 0.3, np.float64)
    log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = log_pi[np.arange(9), actions]
    np.testing.assert_allclose(
        log_probability(single_array(logits), jnp.asarray(actions)), chosen, rtol=1e-5
    )
    np.testing.assert_allclose(
        policy_gradient_loss(
            single_array(logits),
            jnp.asarray(actions),
            single_array(advantages),
            single_array(valid),
        ),
        -(valid * advantages * chosen).sum(),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        baseline_loss(single_array(values), single_array(targets), single_array(valid)),
        (valid * (targets - values) ** 2).sum() / 2,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        entropy_loss(single_array(logits), single_array(valid)),
        (valid * (np.exp(log_pi) * log_pi).sum(axis=-1)).sum(),
        rtol=1e-5,
    )


def test_no_gradient_flows_through_targets_and_advantages() -> None:
    given = single(case(7, 5))

    def total(values: Any, ratios: Any) -> jax.Array:
        found = vtrace(values, given.rewards, given.discounts, ratios)
        return jnp.sum(found.targets) + jnp.sum(found.advantages)

    for gradient in jax.grad(total, argnums=(0, 1))(given.values, given.ratios):
        assert not gradient.any()
