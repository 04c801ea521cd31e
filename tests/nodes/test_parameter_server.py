"""The parameter server as a plain object, in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest

import lpml
from lpml.nodes import (
    AbstractParameterServer,
    Asynchronous,
    BoundedStaleness,
    Consistency,
    Flat,
    ParameterServer,
    ShardedParameterServer,
    Synchronous,
    split_params,
)
from lpml.nodes.sharding import ShardedVersion
from lpml.testing import VirtualClock, node

ONE = {"w": np.ones((2,), np.float32)}


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    clock = VirtualClock()
    with node("server/0", clock=clock):
        yield clock


def server(mode: Consistency, **options: Any) -> ParameterServer:
    return ParameterServer({"w": np.zeros((2,), np.float32)}, optax.sgd(1.0), mode=mode, **options)


def grads(value: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"w": np.full((2,), value, np.float32)}


def value(server: AbstractParameterServer) -> float:
    return float(server.pull().params["w"][0])


class Background:
    """A call that is expected to wait, on a thread of its own."""

    def __init__(self, clock: VirtualClock, call: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(clock, call), daemon=True)
        self._thread.start()

    def _run(self, clock: VirtualClock, call: Callable[[], Any]) -> None:
        with node("worker/0", clock=clock):
            try:
                self._outcome.append(call())
            except lpml.Error as error:
                self._outcome.append(error)

    @property
    def waits(self) -> bool:
        return not self._outcome

    def result(self) -> Any:
        self._thread.join(10)
        return self._outcome[0]


def would_wait(call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    try:
        call(*args, **kwargs, timeout=0)
    except lpml.CallTimeout:
        return True
    return False


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


def test_a_synchronous_update_is_the_weighted_mean_at_one_version(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    first = Background(clock, lambda: ps.exchange("a", grads(1), version=0, weight=30))
    clock.until_waiting()
    assert first.waits
    assert ps.exchange("b", grads(5), version=0, weight=10).version == 1
    assert first.result().version == 1
    assert value(ps) == -2


def test_a_slow_worker_holds_up_a_synchronous_update_and_is_named(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    ps.pull("slow")
    ps.push("a", grads(1), version=0)
    with pytest.raises(lpml.CallTimeout, match="it waits for slow"):
        ps.pull("a", timeout=0)
    assert would_wait(ps.pull, "a")
    assert not would_wait(ps.pull, "slow")


def test_a_backup_worker_that_comes_too_late_starts_from_the_new_version(
    clock: VirtualClock,
) -> None:
    ps = server(Synchronous(3, backup_workers=1))
    ps.pull("slow")
    ps.push("a", grads(1), version=0)
    ps.push("b", grads(3), version=0)
    assert not ps.push("slow", grads(99), version=0).accepted
    assert ps.pull("slow", timeout=0).version == 1
    assert value(ps) == -2


@pytest.mark.parametrize("mode", [Synchronous(2), BoundedStaleness(0)])
def test_a_worker_that_leaves_frees_those_who_wait(clock: VirtualClock, mode: Consistency) -> None:
    ps = server(mode)
    ps.pull("gone")
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    clock.until_waiting()
    ps.leave("gone")
    assert waiting.result().version == 1
    assert ps.statistics().departed == ("gone",)


@pytest.mark.parametrize("mode", [Synchronous(2), BoundedStaleness(0)])
def test_a_worker_that_falls_silent_is_given_up_after_its_lease(
    clock: VirtualClock, mode: Consistency
) -> None:
    ps = server(mode, lease=30.0)
    ps.pull("dead")
    clock.advance(10.0)
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    clock.until_waiting()
    clock.advance(19.0)
    clock.until_waiting()
    assert waiting.waits
    clock.advance(1.0)
    assert waiting.result().version == 1
    statistics = ps.statistics()
    assert (statistics.members, statistics.departed) == (("a",), ("dead",))
    assert statistics.waited["a"] == 20.0


def test_a_worker_that_waits_longer_than_the_lease_stays_a_member(clock: VirtualClock) -> None:
    ps = server(Synchronous(2), lease=30.0)
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    for _ in range(4):
        clock.until_waiting()
        clock.advance(20.0)
    ps.push("b", grads(1), version=0)
    assert waiting.result().version == 1
    assert ps.statistics().members == ("a", "b")


@pytest.mark.parametrize("mode", [Synchronous(2), BoundedStaleness(0), Asynchronous()])
def test_a_worker_given_up_by_mistake_comes_back_by_its_next_call(
    clock: VirtualClock, mode: Consistency
) -> None:
    ps = server(mode, lease=30.0)
    for worker in ("a", "slow"):
        ps.push(worker, grads(1), version=0)
    version = ps.pull().version
    clock.advance(31.0)
    assert ps.exchange("a", grads(1), version=version).version == version + 1
    assert ps.statistics().departed == ("slow",)
    assert ps.push("slow", grads(1), version=version + 1).accepted
    assert ps.statistics().departed == ()


def test_a_late_joiner_gets_the_newest_version_and_takes_part(clock: VirtualClock) -> None:
    ps = server(Synchronous(1))
    for version in range(3):
        ps.exchange("a", grads(1), version=version)
    assert ps.pull("late").version == 3
    ps.push("late", grads(3), version=3)
    assert ps.exchange("a", grads(1), version=3).version == 4
    assert value(ps) == -5
    ps.push("a", grads(1), version=4)
    assert would_wait(ps.pull, "a")


def test_bounded_staleness_stops_the_fast_and_lets_the_slow_catch_up(clock: VirtualClock) -> None:
    ps = server(BoundedStaleness(1))
    ps.pull("slow")
    assert ps.exchange("fast", grads(1), version=0).version == 1
    waiting = Background(clock, lambda: ps.exchange("fast", grads(1), version=1))
    clock.until_waiting()
    clock.advance(2.5)
    clock.until_waiting()
    assert ps.exchange("slow", grads(1), version=0).version == 3
    assert waiting.result().version == 3
    assert ps.statistics().waited["fast"] == 2.5


def test_a_reader_waits_for_a_version_and_for_no_worker(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    reader = Background(clock, lambda: ps.pull(at_least=1))
    ps.push("a", grads(1), version=0)
    clock.until_waiting()
    assert reader.waits
    ps.push("b", grads(1), version=0)
    assert reader.result().version == 1
    assert ps.statistics().members == ("a", "b")


def test_a_stop_ends_every_wait(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    clock.until_waiting()
    clock.stop()
    assert isinstance(waiting.result(), lpml.ProgramStopped)


def test_the_deadline_of_the_caller_ends_its_wait(clock: VirtualClock) -> None:
    def pull() -> Any:
        with lpml.deadline(5.0):
            return ps.pull(at_least=1)

    ps = server(Asynchronous())
    waiting = Background(clock, pull)
    clock.until_waiting()
    clock.advance(5.0)
    assert isinstance(waiting.result(), lpml.CallTimeout)


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


def sharded(mode: Consistency = Asynchronous()) -> tuple[ShardedParameterServer, Any]:  # noqa: B008
    params = {
        "a": {"w": np.ones((4, 4), np.float32), "b": np.ones((4,), np.float32)},
        "c": [np.ones((2,), np.float32)],
    }
    servers = [ParameterServer(part, optax.sgd(1.0), mode=mode) for part in split_params(params, 2)]
    return ShardedParameterServer(servers, params), params


def test_shards_seen_as_one_server_give_back_the_whole_tree() -> None:
    for form in (dict, Flat.of):
        ps, params = sharded()
        gradient: Any = form(params)
        snapshot = ps.exchange("a", gradient, version=ps.pull("a").version)
        assert snapshot.version == 1
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(snapshot.params))
        assert jax.tree.map(np.shape, snapshot.params) == jax.tree.map(np.shape, params)
        assert snapshot.flat.vectors[0].shape == (22,)


def test_each_shard_counts_its_own_versions() -> None:
    ps, params = sharded()
    old = ps.pull("a").version
    ps._servers[0].push("b", ps._servers[0].pull().params, version=0)
    new = ps.pull("a").version
    assert isinstance(new, ShardedVersion)
    assert (new, new.shards) == (0, (1, 0))
    assert ps.push("a", params, version=old).staleness == 1
    assert ps.push("a", params, version=ps.pull("a").version).staleness == 0


def test_synchronous_shards_move_together() -> None:
    ps, params = sharded(Synchronous(2))
    ps.push("a", params, version=0)
    assert ps.pull().version == 0
    version = ps.exchange("b", params, version=0).version
    assert isinstance(version, ShardedVersion)
    assert version.shards == (1, 1)
    ps.leave("a")
    assert ps.statistics().members == ("b",)


def test_shards_refuse_a_gradient_of_another_tree() -> None:
    ps, _ = sharded()
    with pytest.raises(ValueError, match="the gradient is a tree"):
        ps.push("a", grads(1), version=0)


def test_leaves_are_dealt_out_by_size() -> None:
    params = {
        name: np.zeros((size,), np.float32) for name, size in zip("abcd", (8, 5, 4, 1), strict=True)
    }
    first, second = split_params(params, 2)
    assert list(first) == ["['a']", "['d']"]
    assert list(second) == ["['b']", "['c']"]


@pytest.mark.parametrize("shards", [0, 2])
def test_more_shards_than_leaves_are_refused(shards: int) -> None:
    with pytest.raises(ValueError, match=f"num_shards={shards}"):
        split_params(ONE, shards)
