"""Small trees as bytes: what was joined is what is split, and what cannot be is left alone."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lpml.nodes.replay import (
    Insert,
    Items,
    Replay,
    Sample,
    SampleInfo,
    Sequences,
    Step,
    Steps,
    TableConfig,
    Transitions,
)
from lpml.nodes.replay.compact import MOST, Arena, join, split

DTYPES = st.sampled_from([np.bool_, np.int8, np.uint8, np.int32, np.float32, np.float64])
LEAVES = (
    arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
    | st.integers(0, 2**62)
    | st.none()
)
TREES = st.recursive(
    LEAVES,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.tuples(parts, parts)
        | st.dictionaries(st.text(max_size=2), parts, max_size=3)
        | st.builds(Step, parts, parts, parts, parts, parts)
    ),
    max_leaves=8,
)


def check_equal(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.flags.writeable
        assert left.flags.c_contiguous
        assert left.flags.aligned
        np.testing.assert_array_equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        check_equal(list(left.values()), list(right.values()))
    elif isinstance(left, (tuple, list)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            check_equal(one, other)
    else:
        assert left == right


@settings(deadline=None)
@given(TREES, TREES)
def test_what_is_joined_is_split_again(first: Any, second: Any) -> None:
    tree = (first, [second])
    joined = join(tree)
    assert joined is not None
    check_equal(split(*joined), tree)


@pytest.mark.parametrize(
    "leaf",
    [
        -1,
        0.5,
        "word",
        np.float32(1),
        np.array([object()]),
        np.zeros((4, 4)).T[1:],
        np.zeros(MOST + 1, np.uint8),
        np.zeros(3, "S4"),
        {1, 2},
    ],
)
def test_what_is_unusual_or_large_is_left_alone(leaf: Any) -> None:
    assert join((np.zeros(3), leaf)) is None


def test_many_arrays_may_be_large_together() -> None:
    assert join([np.zeros(MOST // 2, np.uint8)] * 2) is not None
    assert join([np.zeros(MOST // 2, np.uint8)] * 3) is None


@pytest.mark.parametrize("rows", [3, 100_000])
def test_batches_and_inserts_are_the_same_after_a_journey(rows: int) -> None:
    numbers = np.arange(rows)
    halves = numbers.astype(np.float64) / 2
    step = Step({"pixels": numbers.astype(np.uint8)}, numbers, halves, numbers > 1)
    sample = Sample(step, SampleInfo(numbers, halves, halves, numbers, 7))
    items = {"t": Items(numbers, numbers, None)}
    insert = Insert(1 << 61, 5, step, numbers, numbers, numbers, numbers, items)
    for tree in (sample, insert):
        check_equal(pickle.loads(pickle.dumps(tree, 5)), tree)
        check_equal(pickle.loads(pickle.dumps(tree, 4)), tree)


@pytest.mark.parametrize("view", [Steps(), Transitions(2), Sequences(3)])
def test_a_large_batch_made_in_an_arena_is_one_block(view: Any) -> None:
    step = Step(
        {"pixels": np.zeros((9, 9, 9), np.uint8), "t": np.int32(0)},
        np.int32(0),
        np.float32(0),
        np.float32(0),
        (np.zeros(3, np.float32),),
    )
    replay = Replay([TableConfig("t", step, 100, view)])
    table = replay._tables["t"].table
    columns = [
        np.random.default_rng(i).integers(0, 99, (50, *column.shape[1:])).astype(column.dtype)
        for i, column in enumerate(table.store.columns)
    ]
    rows = table.store.append(columns, 50)
    table.store.link(rows, np.array([50]))
    table.insert(rows[: 51 - view.rows], np.full(51 - view.rows, view.rows), None)
    draw = table.draw(300)
    counted = Arena(None)
    table.read(draw, counted)
    sample = table.read(draw, Arena(memoryview(bytearray(counted.size))))
    check_equal(sample, table.read(draw))
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(sample, 5, buffer_callback=buffers.append)
    assert [buffer.raw().nbytes for buffer in buffers] == [counted.size]
    check_equal(pickle.loads(body, buffers=[bytearray(buffers[0].raw())]), sample)
    other = sample._replace(data=(sample.data, np.zeros(MOST)))  # no longer one block
    check_equal(pickle.loads(pickle.dumps(other, 5)), other)
