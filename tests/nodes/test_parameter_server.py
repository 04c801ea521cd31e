"""The parameter server as a plain object: updates, versions, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

import lpml
from lpml.nodes import (
    Asynchronous,
    Flat,
    ParameterServer,
    Synchronous,
)
from tests.nodes.small_server import ONE, grads, server, value


def test_a_pushed_gradient_goes_through_the_optimiser() -> None:
    adam = optax.adam(0.1)
    params = {"layer": {"w": np.ones((3, 2), np.float32), "b": np.ones((2,), np.float32)}}
    gradients = [jax.tree.map(lambda leaf, g=g: np.full_like(leaf, g), params) for g in (1, -3)]
    ps = ParameterServer(params, adam)
    for version, gradient in enumerate(gradients):
        assert ps.push("a", gradient, version=version).accepted

    @jax.jit
    def reference(expected: Any) -> Any:
        state = adam.init(expected)
        for gradient in gradients:
            updates, state = adam.update(gradient, state, expected)
            expected = optax.apply_updates(expected, updates)
        return expected

    with jax.numpy_dtype_promotion("standard"):
        expected = reference(params)
    jax.tree.map(np.testing.assert_array_almost_equal, ps.pull().params, expected)


def test_a_gradient_may_be_flat_and_of_another_type_of_number() -> None:
    params = {"w": np.ones((2, 2), np.float32), "b": np.ones(3, np.float32)}
    results = []
    for dtype, form in ((np.float32, Flat.of), (np.float16, Flat.of), (np.float16, dict)):
        ps = ParameterServer(params, optax.sgd(0.5))
        gradient: Any = form(jax.tree.map(lambda leaf, d=dtype: leaf.astype(d), params))
        results.append(ps.exchange("a", gradient, version=0))
    for snapshot in results:
        jax.tree.map(lambda p, s: np.testing.assert_array_equal(p, s / 2), snapshot.params, params)
        assert snapshot.flat.vectors[0].tolist() == [0.5] * 7


def test_an_optimiser_sees_the_tree_and_not_the_vectors() -> None:
    params = {"w": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    only_w = optax.masked(optax.set_to_zero(), {"w": False, "b": True})
    ps = ParameterServer(params, optax.chain(only_w, optax.sgd(1.0)))
    got = ps.exchange("a", Flat.of(params), version=0).params
    assert (got["w"].tolist(), got["b"].tolist()) == ([0, 0], [1, 1])


def test_flat_gradients_and_trees_make_one_synchronous_update() -> None:
    ps = server(Synchronous(2))
    ps.push("a", grads(1), version=0)
    ps.push("b", Flat.of(grads(3)), version=0)
    assert value(ps) == -2


def test_parameters_can_be_made_in_the_node() -> None:
    assert ParameterServer(lambda: ONE, optax.sgd(1.0)).pull().params["w"].tolist() == [1, 1]


def test_versions_count_updates_and_staleness_is_measured() -> None:
    ps = server(Asynchronous())
    assert ps.push("a", grads(1), version=0).version == 1
    receipt = ps.push("b", grads(1), version=0)
    assert (receipt.accepted, receipt.version, receipt.staleness) == (True, 2, 1)
    statistics = ps.statistics()
    assert statistics.staleness == {0: 1, 1: 1}
    assert statistics.mean_staleness == 0.5
    assert statistics.members == ("a", "b")


def test_a_version_is_published_once_and_only_if_somebody_pulls_it() -> None:
    ps = server(Asynchronous())
    assert ps.pull("a").shared is ps.pull("b").shared
    ps.push("a", grads(1), version=0)
    ps.push("a", grads(1), version=1)
    ps.pull()
    assert ps.statistics().snapshots == 2


def test_a_snapshot_stays_as_it_was() -> None:
    ps = server(Asynchronous())
    before = ps.pull()
    ps.push("a", grads(1), version=0)
    assert (before.version, before.params["w"].tolist()) == (0, [0, 0])


def test_gradients_of_a_restored_future_are_dropped() -> None:
    assert not server(Asynchronous()).push("a", grads(1), version=5).accepted


def test_too_stale_gradients_are_dropped_where_that_is_asked_for() -> None:
    ps = server(Asynchronous(max_staleness=0))
    ps.push("fast", grads(1), version=0)
    assert not ps.push("slow", grads(1), version=0).accepted
    assert ps.statistics().dropped == 1
    assert value(ps) == -1


def test_the_last_update_makes_snapshots_final_and_drops_the_rest() -> None:
    ps = server(Asynchronous(), max_updates=1)
    assert not ps.pull("a").final
    assert ps.exchange("a", grads(1), version=0).final
    assert not ps.push("a", grads(1), version=1).accepted
    assert ps.pull(at_least=99).version == 1


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        ({"v": np.zeros((2,), np.float32)}, "push a gradient with respect to all of them"),
        ({"w": np.zeros((3,), np.float32)}, r"\['w'\] has shape \(3,\) instead of \(2,\)"),
        (Flat.of({"w": np.zeros((3,), np.float32)}), r"has shape \(3,\) instead of \(2,\)"),
    ],
)
def test_a_gradient_that_does_not_fit_is_refused(gradient: Any, message: str) -> None:
    ps = server(Asynchronous())
    with pytest.raises(ValueError, match=message):
        ps.push("a", gradient, version=0)
    assert ps.pull().version == 0


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight="):
        server(Asynchronous()).push("a", grads(1), version=0, weight=weight)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="max_updates=-1"):
        server(Asynchronous(), max_updates=-1)
    with pytest.raises(ValueError, match="lease=0"):
        server(Asynchronous(), lease=0)


def test_a_restored_server_goes_on_where_it_was_saved() -> None:
    def trained(ps: ParameterServer, versions: range) -> Any:
        for version in versions:
            ps.push("a", grads(version), version=version)
        return ps.pull().params["w"]

    def momentum() -> ParameterServer:
        return ParameterServer(ONE, optax.sgd(0.1, momentum=0.9))

    original, successor = momentum(), momentum()
    trained(original, range(3))
    assert isinstance(successor, lpml.Checkpointable)
    successor.restore(original.save())
    np.testing.assert_array_equal(trained(successor, range(3, 6)), trained(original, range(3, 6)))


def test_the_order_of_arrival_does_not_change_a_synchronous_update() -> None:
    results = []
    for order in ("abc", "cab"):
        ps = server(Synchronous(3))
        for worker in order:
            ps.push(worker, grads({"a": 0.1, "b": 1e6, "c": 0.7}[worker]), version=0)
        results.append(ps.pull().params["w"].tobytes())
    assert results[0] == results[1]
