"""The losses of DQN against float64 numpy, and the heads of its network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents.dqn import losses
from lpml.agents.dqn.networks import combine, make_network
from tests.agents.small_dqn import SMALL, A, B, make_spec

# losses


def test_the_double_error_takes_the_action_of_one_network_and_the_value_of_the_other() -> None:
    error = losses.td_error(
        q_tm1=jnp.array([1.0, 2.0, 3.0]),
        action_tm1=jnp.int32(1),
        reward_t=jnp.float32(0.5),
        discount_t=jnp.float32(0.9),
        target_q_t=jnp.array([10.0, 20.0, 30.0]),
        selector_q_t=jnp.array([0.0, 1.0, 0.5]),
    )
    assert error == pytest.approx(0.5 + 0.9 * 20 - 2)


def test_the_target_has_no_gradient() -> None:
    def square(q_tm1: jax.Array, target: jax.Array, selector: jax.Array) -> jax.Array:
        action, reward, discount = jnp.int32(0), jnp.float32(1), jnp.float32(0.9)
        return losses.td_error(q_tm1, action, reward, discount, target, selector) ** 2

    q = jnp.array([1.0, 2.0, 3.0])
    of_q, of_target, of_selector = jax.grad(square, argnums=(0, 1, 2))(q, q, q)
    assert of_q.tolist() == pytest.approx([-2 * (1 + 0.9 * 3 - 1), 0, 0])
    assert not of_target.any()
    assert not of_selector.any()


def test_errors_of_a_batch_equal_those_in_float64() -> None:
    rng = np.random.default_rng(0)
    q, target, selector = rng.normal(size=(3, 50, A)) * 10
    action, discount = rng.integers(0, A, 50), rng.choice([0.0, 0.951], 50)
    reward = rng.normal(size=50)
    rows = np.arange(50)
    expected = reward + discount * target[rows, selector.argmax(1)] - q[rows, action]
    given = [jnp.asarray(x, jnp.float32) for x in (q, reward, discount, target, selector)]
    q32, reward32, discount32, target32, selector32 = given
    error = jax.vmap(losses.td_error)(
        q32, jnp.asarray(action, jnp.int32), reward32, discount32, target32, selector32
    )
    np.testing.assert_allclose(error, expected, rtol=1e-5, atol=1e-5)


def test_values_of_a_whole_batch_are_refused() -> None:
    q, scalar = jnp.zeros((B, A)), jnp.float32(0)
    with pytest.raises(ValueError, match=r"\(6, 3\).*jax\.vmap"):
        losses.td_error(q, jnp.int32(0), scalar, scalar, q, q)


@pytest.mark.parametrize(
    ("error", "delta", "expected"),
    [(0.0, 1.0, 0.0), (0.5, 1.0, 0.125), (-1.0, 1.0, 0.5), (-3.0, 1.0, 2.5), (5.0, 2.0, 8.0)],
)
def test_huber_is_half_the_square_and_then_linear(
    error: float, delta: float, expected: float
) -> None:
    assert losses.huber(jnp.float32(error), delta) == pytest.approx(expected)
    slope = jax.grad(losses.huber)(jnp.float32(error), delta)
    assert slope == pytest.approx(np.clip(error, -delta, delta))


def test_importance_weights_make_up_for_how_often_an_item_is_drawn() -> None:
    probability = np.array([0.001, 0.01, 0.1, 0.5])
    weights = losses.importance_weights(
        jnp.asarray(probability, jnp.float32), jnp.float32(200), 0.4
    )
    expected = (200 * probability) ** -0.4
    np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-5)
    assert weights.tolist() == pytest.approx([1.0, 0.39810717, 0.15848932, 0.08325532])
    uniform = losses.importance_weights(jnp.full(4, 0.005, jnp.float32), jnp.float32(200), 1.0)
    assert uniform.tolist() == pytest.approx([1, 1, 1, 1])


def test_losses_equal_those_of_rlax() -> None:
    rlax = pytest.importorskip("rlax")
    rng = np.random.default_rng(1)
    q, target, selector = jnp.asarray(rng.normal(size=(3, 50, A)), jnp.float32)
    action = jnp.asarray(rng.integers(0, A, 50), jnp.int32)
    reward, discount = jnp.asarray(rng.normal(size=(2, 50)), jnp.float32)
    mine = jax.vmap(losses.td_error)(q, action, reward, discount, target, selector)
    theirs = jax.vmap(rlax.double_q_learning)(q, action, reward, discount, target, selector)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    mine = jax.vmap(losses.td_error)(q, action, reward, discount, target, target)
    theirs = jax.vmap(rlax.q_learning)(q, action, reward, discount, target)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(losses.huber(mine, 0.5), rlax.huber_loss(mine, 0.5), rtol=1e-5)


# networks


@pytest.mark.parametrize(
    "observation",
    [
        jax.ShapeDtypeStruct((4,), jnp.float32),
        jax.ShapeDtypeStruct((10, 5), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((12, 12, 3), jnp.uint8),
        {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.uint8)},
    ],
    ids=["vector", "board", "number", "image", "tree"],
)
def test_values_have_a_row_for_each_observation(observation: Any) -> None:
    network = make_network(make_spec(observation), SMALL)
    params = jax.eval_shape(network.init, jax.random.key(0))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((5, *x.shape), x.dtype), observation)
    values = jax.eval_shape(network.apply, params, batch)
    assert (values.shape, values.dtype) == ((5, A), jnp.float32)


def test_a_plain_head_has_no_value_stream() -> None:
    for dueling in (True, False):
        network = make_network(make_spec(), dataclasses.replace(SMALL, dueling=dueling))
        params = jax.eval_shape(network.init, jax.random.key(0))
        assert ("value" in params) == dueling


def test_the_mean_of_dueling_values_is_the_value_stream() -> None:
    value, advantage = jnp.array([[2.0], [5.0]]), jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    values = combine(value, advantage)
    assert values.tolist() == [[0, 1, 5], [5, 5, 5]]
