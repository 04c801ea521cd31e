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
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
