"""Parameter servers that hold parts of a tree, seen as one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

from lpml.nodes import (
    Asynchronous,
    Consistency,
    Flat,
    ParameterServer,
    ShardedParameterServer,
    Synchronous,
    split_params,
)
from lpml.nodes.sharding import ShardedVersion
from tests.nodes.small_server import ONE, grads


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
