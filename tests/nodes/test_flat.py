"""A pytree in vectors: out of it, into it, through `jit` and through a pickle."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.nodes import Flat


class Pair(NamedTuple):
    left: Any
    right: Any


TREES: dict[str, Any] = {
    "nested": {
        "a": [np.arange(6.0, dtype=np.float32).reshape(2, 3)],
        "b": (np.ones(4, np.float32),),
    },
    "mixed types": {
        "w": np.ones((2, 2), np.float32),
        "n": np.arange(3, dtype=np.int32),
        "b": np.full(2, 7, np.float32),
        "h": np.ones(3, jnp.bfloat16),
    },
    "scalars and nothing": {"s": np.float32(3), "e": np.zeros((0, 4), np.float32), "none": None},
    "other containers": Pair(OrderedDict(z=np.ones(1), a=np.zeros(2)), [np.ones(3)]),
    "empty": {},
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_as_it_was(name: str) -> None:
    tree = TREES[name]
    for flat in (Flat.of(tree), pickle.loads(pickle.dumps(Flat.of(tree)))):
        got: object = jax.tree.structure(flat.tree)
        assert got == jax.tree.structure(tree)
        for ours, theirs in zip(jax.tree.leaves(flat.tree), jax.tree.leaves(tree), strict=True):
            assert isinstance(ours, np.ndarray)
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_array_equal(ours, theirs)


def test_there_is_one_vector_for_each_type_of_number() -> None:
    flat = Flat.of(TREES["mixed types"])
    assert sorted((vector.dtype.name, vector.shape) for vector in flat.vectors) == [
        ("bfloat16", (3,)),
        ("float32", (6,)),
        ("int32", (3,)),
    ]


def test_the_leaves_are_views_of_the_vectors() -> None:
    flat = Flat.of(TREES["nested"])
    assert all(leaf.base is not None for leaf in jax.tree.leaves(flat.tree))
    flat.vectors[0].flags.writeable = False
    assert not Flat(flat.vectors, flat.layout).tree["b"][0].flags.writeable


def test_jit_takes_and_returns_one_and_is_traced_once() -> None:
    traces = []

    @jax.jit
    def double(flat: Flat) -> Flat:
        traces.append(flat)
        return Flat.of(jax.tree.map(lambda leaf: 2 * leaf, flat.tree))

    first = Flat.of(TREES["nested"])
    second = double(double(first))
    again = double(pickle.loads(pickle.dumps(first)))
    np.testing.assert_array_equal(second.to_numpy().tree["a"][0], 4 * TREES["nested"]["a"][0])
    assert again.layout is second.layout is first.layout
    assert len(traces) == 1


def test_layouts_differ_by_structure_shape_and_type() -> None:
    one = Flat.of({"w": np.ones(4, np.float32)}).layout
    for other in (
        {"v": np.ones(4, np.float32)},
        {"w": np.ones((2, 2), np.float32)},
        {"w": np.ones(4, np.int32)},
    ):
        assert Flat.of(other).layout != one
    assert Flat.of({"w": np.zeros(4, np.float32)}).layout is one
    assert hash(Flat.of({"w": np.zeros(4, np.float32)}).layout) == hash(one)


def test_a_tree_of_jax_arrays_makes_vectors_of_jax() -> None:
    flat = Flat.of({"w": jnp.ones(2), "b": np.zeros(1, np.float32)})
    assert isinstance(flat.vectors[0], jax.Array)
    assert isinstance(flat.to_numpy().vectors[0], np.ndarray)
