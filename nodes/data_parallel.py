"""One computation on several devices: the axis of the batch is divided among them.

jax makes of a program for one device one for several when it is told where its arrays lie. What is
computed stays the same, random numbers included; only sums are taken in another order.

Reference: Xu et al., "GSPMD: General and Scalable Parallelization for ML Computation Graphs"
(2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lpml.nodes.learning import Algorithm, Experience, LearnerState, Update

_AXIS = "batch"
_MESH: ContextVar[Mesh | None] = ContextVar("lpml_mesh", default=None)


def make_mesh(devices: Sequence[jax.Device]) -> Mesh | None:
    """The devices as one axis; `None` where there is only one of them."""
    return Mesh(np.asarray(devices), (_AXIS,)) if len(devices) > 1 else None


@contextmanager
def tracing_over(mesh: Mesh | None) -> Iterator[None]:
    """What is traced inside is meant for these devices; `spread` and `replicate` say how."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def spread(tree: Any) -> Any:
    """Arrays `[B, ...]`, divided along B; as they are where B does not divide, or on one device.

    For algorithms: a batch that was put together by indices is to be spread again.
    """
    mesh = _MESH.get()
    if mesh is None:
        return tree
    parts = NamedSharding(mesh, PartitionSpec(_AXIS))

    def one(leaf: jax.Array) -> jax.Array:
        if leaf.ndim == 0 or leaf.shape[0] % mesh.size:
            return leaf
        placed: jax.Array = jax.lax.with_sharding_constraint(leaf, parts)
        return placed

    return jax.tree.map(one, tree)


def replicate(tree: Any) -> Any:
    """Arrays that every device has whole."""
    mesh = _MESH.get()
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def place(tree: Any, mesh: Mesh | None, *, divided: bool) -> Any:
    """Puts arrays that exist on the devices, divided along their first axis or whole on each."""
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*[_AXIS] * divided)))


@final
class Divided:
    """Where an algorithm runs: arrays of a batch are divided among the devices, others copied.

    Args:
      devices: in order; `None` = the one that jax chooses by itself, and arrays stay uncommitted.
    """

    def __init__(self, devices: Sequence[jax.Device] | None) -> None:
        self._mesh = None if devices is None else Mesh(np.asarray(devices), (_AXIS,))

    def put(self, tree: Any) -> Any:
        """Arrays `[B, ...]` of another device, divided along B."""
        return place(tree, self._mesh, divided=True)

    def deal(self, tree: Any, batches: int) -> Any:
        """Rows `[K * B, ...]` such that each of K batches has some of every device; in `jit`."""
        with tracing_over(self._mesh):
            return deal(tree, batches)

    def algorithm(self, algorithm: Algorithm) -> Algorithm:
        """The same, computed on these devices."""
        mesh = self._mesh
        if mesh is None:
            return algorithm

        def init(key: jax.Array) -> LearnerState:
            with tracing_over(mesh):
                return replicate(algorithm.init(key))

        def update(state: LearnerState, experience: Experience) -> tuple[LearnerState, Update]:
            with tracing_over(mesh):
                state, update = algorithm.update(state, spread(experience))
                return replicate(state), replicate(update)

        return Algorithm(init, update, algorithm.variables)


def deal(tree: Any, batches: int) -> Any:
    """Rows `[K * B, ...]` such that each of K batches has some of every device's; in `jit`."""
    if batches == 1:
        return spread(tree)
    return jax.tree.map(
        lambda x: x.reshape(-1, batches, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape), tree
    )
