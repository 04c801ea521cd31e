"""Parameters spread over several servers: each holds some leaves of the tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar, final

import jax
import numpy as np

import lpml
from lpml.nodes.flat import Flat
from lpml.nodes.gradients import check_structure
from lpml.nodes.roles import (
    AbstractParameterServer,
    ParameterServerStatistics,
    Params,
    Receipt,
    Snapshot,
    Whole,
)

R = TypeVar("R")
Shard: TypeAlias = dict[str, Params]  # {path of a leaf: the leaf}


def split_params(params: Params, num_shards: int) -> list[Shard]:
    """Deals the leaves of `params` out to shards of about equal bytes.

    Args:
      params: a pytree of arrays, or of anything with shape and dtype.
      num_shards: at most the number of leaves.

    Returns:
      One dict per shard, `{path: leaf}`: what a `ParameterServer` of that shard is given.

    Raises:
      ValueError: there are fewer leaves than shards.

    Example:
      >>> split_params({"w": np.ones(3), "b": np.ones(1)}, 2)
      [{"['w']": array([1., 1., 1.])}, {"['b']": array([1.])}]
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    if not 1 <= num_shards <= len(paths):
        raise ValueError(
            f"split_params(num_shards={num_shards}): the parameters have {len(paths)} leaves; "
            "give a number from 1 to that"
        )
    shards: list[Shard] = [{} for _ in range(num_shards)]
    loads = [0] * num_shards
    for path, leaf in sorted(paths, key=lambda item: -_num_bytes(item[1])):
        lightest = loads.index(min(loads))
        shards[lightest][jax.tree_util.keystr(path)] = leaf
        loads[lightest] += _num_bytes(leaf)
    return shards


def _num_bytes(leaf: Params) -> int:
    return int(np.prod(leaf.shape, dtype=np.int64) * np.dtype(leaf.dtype).itemsize)


@final
class ShardedVersion(int):
    """The versions of all shards; as a number it is the lowest of them."""

    shards: tuple[int, ...]

    def __new__(cls, shards: Sequence[int]) -> ShardedVersion:
        version = super().__new__(cls, min(shards))
        version.shards = tuple(shards)
        return version

    def __getnewargs__(self) -> tuple[tuple[int, ...]]:  # type: ignore[override]
        return (self.shards,)  # `int` says it takes an int; this is what our __new__ takes


@final
class ShardedParameterServer(AbstractParameterServer):
    """Several servers seen as one. It lives in each worker; the servers are nodes.

    Each server updates its own leaves, by its own count: an optimiser that works leaf by leaf does
    the same as on one server, one that looks at all of them (clipping by the global norm, LAMB
    across leaves) does not. In asynchronous mode the leaves of a snapshot may be of different
    versions; with backup workers the shards may leave out different workers.

    Args:
      servers: one `ParameterServer` per shard, in the order of `split_params`.
      params: the whole tree, or anything of its structure, shapes and dtypes.

    Example:
      >>> import optax
      >>> from lpml.nodes import ParameterServer
      >>> params = {"w": np.ones(3), "b": np.ones(1)}
      >>> servers = [ParameterServer(part, optax.sgd(0.5)) for part in split_params(params, 2)]
      >>> server = ShardedParameterServer(servers, params)
      >>> server.exchange("me", params, version=server.pull("me").version).params["b"].tolist()
      [0.5]
    """

    def __init__(self, servers: Sequence[AbstractParameterServer], params: Params) -> None:
        self._servers = tuple(servers)
        self._template = jax.tree.map(lambda leaf: 0, params)  # a structure cannot be pickled
        paths, _ = jax.tree_util.tree_flatten_with_path(params)
        self._paths = [jax.tree_util.keystr(path) for path, _ in paths]
        self._shards = [list(shard) for shard in split_params(params, len(self._servers))]

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        return self._merge(
            lpml.future(server.pull, worker, at_least=at_least, timeout=timeout)
            for server in self._servers
        )

    def push(self, worker: str, grads: Params, *, version: int, weight: float = 1.0) -> Receipt:
        receipts = _results(
            lpml.future(server.push, worker, part, version=age, weight=weight)
            for server, part, age in self._parts(grads, version)
        )
        return Receipt(
            accepted=all(receipt.accepted for receipt in receipts),
            version=ShardedVersion([receipt.version for receipt in receipts]),
            staleness=max(receipt.staleness for receipt in receipts),
        )

    def exchange(
        self,
        worker: str,
        grads: Params,
        *,
        version: int,
        weight: float = 1.0,
        timeout: float | None = None,
    ) -> Snapshot:
        return self._merge(
            lpml.future(server.exchange, worker, part, version=age, weight=weight, timeout=timeout)
            for server, part, age in self._parts(grads, version)
        )

    def leave(self, worker: str) -> None:
        _results(lpml.future(server.leave, worker) for server in self._servers)

    def statistics(self) -> ParameterServerStatistics:
        """Those of the shard that has made the fewest updates."""
        each = _results(lpml.future(server.statistics) for server in self._servers)
        return min(each, key=lambda statistics: statistics.version)

    def _parts(
        self, grads: Params, version: int
    ) -> Iterator[tuple[AbstractParameterServer, Shard, int]]:
        """What goes to each server: its part of the gradient and the version it gave out."""
        if isinstance(grads, Flat):
            grads = grads.to_numpy().tree
        check_structure(jax.tree.structure(grads), jax.tree.structure(self._template))
        by_path = dict(zip(self._paths, jax.tree.leaves(grads), strict=True))
        ages = version.shards if isinstance(version, ShardedVersion) else None
        for index, (server, paths) in enumerate(zip(self._servers, self._shards, strict=True)):
            part = {path: by_path[path] for path in paths}
            yield server, part, version if ages is None else ages[index]

    def _merge(self, futures: Iterable[lpml.Future[Snapshot]]) -> Snapshot:
        parts = _results(futures)
        by_path = {path: leaf for part in parts for path, leaf in part.params.items()}
        leaves = [by_path[path] for path in self._paths]
        tree = jax.tree.unflatten(jax.tree.structure(self._template), leaves)
        return Snapshot(
            version=ShardedVersion([part.version for part in parts]),
            shared=Whole(tree),
            final=all(part.final for part in parts),
        )


def _results(futures: Iterable[lpml.Future[R]]) -> list[R]:
    started = list(futures)  # all of them, before the first is waited for
    return [future.result() for future in started]
