"""The rules of replay: sum tree, order, limiters, cuts, signatures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lpml
from lpml.nodes.replay import (
    CutSequences,
    CutTransitions,
    MinSize,
    Queue,
    SamplesPerInsert,
    Signature,
    Step,
    TableConfig,
    Transitions,
)
from lpml.nodes.replay.limiter import RateLimiter
from lpml.nodes.replay.order import InsertionOrder
from lpml.nodes.replay.sum_tree import SumTree

weights = st.one_of(
    st.just(0.0), st.floats(1e-300, 1e-200), st.floats(1e-3, 1e3), st.floats(1e90, 1e100)
)


@given(st.lists(weights, min_size=1, max_size=200), st.integers(0, 2**32))
def test_a_sum_tree_never_finds_a_leaf_of_weight_zero(values: list[float], seed: int) -> None:
    tree = SumTree(len(values))
    tree.set(np.arange(len(values)), np.array(values))
    if not any(values):
        assert tree.total == 0
        return
    ends = [0.0, tree.total, np.nextafter(tree.total, 0), *np.cumsum(values)]
    points = np.append(np.random.default_rng(seed).random(64) * tree.total, ends)
    assert (np.array(values)[tree.find(points)] > 0).all()


def test_a_sum_tree_draws_in_proportion() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random(3000) < 0.5, 0.0, rng.random(3000))
    tree = SumTree(3000)
    for part in np.array_split(rng.permutation(3000), 7):
        tree.set(part, values[part])
    counts = np.bincount(tree.find(rng.random(400_000) * tree.total), minlength=3000)
    expected = values / values.sum() * 400_000
    assert tree.total == pytest.approx(values.sum())
    assert ((counts - expected) ** 2 / np.maximum(expected, 1)).mean() < 1.2  # chi-squared


def test_a_sum_tree_forgets_rounding() -> None:
    tree = SumTree(100)
    for value in (1e100, 3.0, 0.0):
        tree.set(np.arange(100), np.full(100, value))
    assert tree.total == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100)), max_size=60))
def test_insertion_order_is_a_list(operations: list[tuple[int, int]]) -> None:
    order, model, free = InsertionOrder(20), [], list(range(20))
    rng = np.random.default_rng(0)
    for kind, amount in operations:
        if kind == 0 and free:
            slots = [free.pop() for _ in range(min(len(free), amount % 7 + 1))]
            order.append(np.array(slots))
            model += slots
        elif kind == 1 and model:
            gone = {model[amount % len(model)], model[-1]}
            order.remove(np.array(sorted(gone)))
            model = [slot for slot in model if slot not in gone]
            free += sorted(gone)
        elif kind == 2 and model:
            assert set(order.draw(5, rng)) <= set(model)
        elif kind == 3:
            copy = InsertionOrder(20)
            copy.restore(order.save())
            order = copy
        count = amount % 9 + 1
        assert order.size == len(model)
        assert order.all().tolist() == model
        assert order.oldest(count).tolist() == model[:count]
        assert order.newest(count).tolist() == model[::-1][:count]


def test_a_minimum_size_only_holds_samples_back() -> None:
    limiter = RateLimiter(MinSize(10))
    assert limiter.insertable(0, 1000) == 1000
    assert not limiter.samplable(9, 1)
    assert limiter.samplable(10, 10_000)
    assert "9 of the 10 items" in limiter.why_no_sample(9, 1)


@given(
    st.floats(0.1, 20),
    st.integers(1, 30),
    st.floats(1, 10),
    st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=80),
)
def test_samples_per_insert_counts_in_batches_as_one_by_one(
    ratio: float, min_size: int, slack: float, moves: list[tuple[bool, int]]
) -> None:
    limiter = RateLimiter(SamplesPerInsert(ratio, min_size, slack * max(1.0, ratio)))
    bounds = limiter.limiter.bounds
    size = 0
    for insert, count in moves:
        if insert:
            allowed, diff, grown = 0, limiter.diff, size
            while allowed < count and (
                grown < min_size or diff + ratio <= bounds.max_diff + 1e-9 * ratio
            ):
                allowed, diff, grown = allowed + 1, diff + ratio, grown + 1
            assert limiter.insertable(size, count) == allowed
            limiter.inserts += allowed
            size += allowed
        elif limiter.samplable(size, count):
            assert size >= min_size
            limiter.samples += count
            assert limiter.diff >= bounds.min_diff - 1e-6
        assert limiter.insertable(size, 1) or limiter.samplable(size, 1)  # never both stuck


def test_a_limiter_says_the_largest_batch() -> None:
    assert RateLimiter(Queue(8)).largest_batch == 8
    assert RateLimiter(SamplesPerInsert(2, 100, 16)).largest_batch == 31
    assert RateLimiter(MinSize(1)).largest_batch == float("inf")


@pytest.mark.parametrize("limiter", [MinSize(3), SamplesPerInsert(0.5, 7), Queue(4)])
def test_a_limiter_is_saved_with_its_counters(limiter: Any) -> None:
    one, other = RateLimiter(MinSize(1)), RateLimiter(MinSize(1))
    one.inserts = 5
    one.change(limiter, 5)
    one.inserts, one.samples = 9, 3
    other.restore(one.save())
    assert (other.limiter, other.diff) == (one.limiter, one.diff)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limiter": MinSize(11)}, "waits for 11 items, the table holds at most 10"),
        ({"limiter": Queue(11), "max_times_sampled": 1}, "holds at most 10"),
        ({"limiter": Queue(5)}, "needs max_times_sampled=1"),
        ({"limiter": SamplesPerInsert(4, 5), "max_times_sampled": 2}, "max_times_sampled is 2"),
        ({"max_size": 0}, "max_size=0"),
        ({"view": Transitions(3)}, "reads lpml.nodes.replay.Step"),
        ({"max_times_sampled": 0}, "at least 1"),
    ],
)
def test_a_table_that_can_never_be_sampled_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(lpml.UsageError, match=message):
        TableConfig(**{"name": "t", "signature": np.zeros(2), "max_size": 10, **changes})


@pytest.mark.parametrize(
    "make",
    [
        lambda: SamplesPerInsert(8, 10, tolerance=4),
        lambda: SamplesPerInsert(0),
        lambda: MinSize(0),
        lambda: Queue(0),
        lambda: Transitions(0),
        lambda: CutSequences(0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make: Any) -> None:
    with pytest.raises(lpml.UsageError):
        make()


def cut_all(cut: Any, length: int, pieces: list[int]) -> list[tuple[int, int]]:
    """The windows of an episode of `length` rows, sent in pieces."""
    start, windows = np.array([0]), []
    ends = sorted({min(piece, length) for piece in pieces} | {length})
    for end in ends:
        found = cut.cut(start, np.array([end]), start == 0, np.array([end == length]))
        assert found.counts.tolist() == [len(found.starts)]
        start = found.following
        windows += list(zip(found.starts.tolist(), found.lengths.tolist(), strict=True))
    return windows


@given(st.integers(1, 5), st.integers(2, 20), st.lists(st.integers(1, 20), max_size=4))
def test_every_step_begins_one_transition(n: int, length: int, pieces: list[int]) -> None:
    windows = cut_all(CutTransitions(n), length, pieces)
    assert windows == [(t, min(n + 1, length - t)) for t in range(length - 1)]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 20), st.lists(st.integers(1, 20)))
def test_sequences_do_not_depend_on_when_they_are_sent(
    length: int, period: int, rows: int, pieces: list[int]
) -> None:
    cut = CutSequences(length, period)
    windows = cut_all(cut, rows, pieces)
    assert windows == cut_all(cut, rows, [])
    assert [start for start, _ in windows] == [i * period for i in range(len(windows))]
    assert all(start + size <= rows for start, size in windows)
    if period <= length:  # every action is in some window
        covered = {t for start, size in windows for t in range(start, start + size)}
        assert covered >= set(range(rows - 1))


class Pair(NamedTuple):
    left: Any
    right: Any


SIGNATURE = Signature({"a": Pair(np.zeros(3, np.float32), np.int64(0)), "b": [None, 1.0]})


def test_a_signature_names_its_fields() -> None:
    assert [field.name for field in SIGNATURE.fields] == ["a/left", "a/right", "b/1"]
    leaves = [1, 2, 3]
    tree = SIGNATURE.unflatten(leaves)
    assert tree == {"a": Pair(1, 2), "b": [None, 3]}
    assert SIGNATURE.flatten(tree) == leaves


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            {"a": Pair(np.zeros((4, 2), np.float32), np.zeros(4, int)), "b": [None, np.zeros(4)]},
            r"'a/left' is float32\[4, 2\], declared as float32\[N, 3\]",
        ),
        ({"a": Pair(np.zeros((4, 3)), np.zeros(4, int)), "b": [None, np.zeros(4)]}, "'a/left'"),
        (
            {
                "a": Pair(np.zeros((4, 3), np.float32), np.zeros(5, int)),
                "b": [None, np.zeros(4, np.float32)],
            },
            "'a/right' has 5 rows",
        ),
        ({"a": (1, 2), "c": 0}, r"missing \['b'\], not declared \['c'\]"),
        ({"a": None, "b": [None, 1]}, "steps/a: got NoneType"),
    ],
)
def test_a_misfit_names_the_field(steps: Any, message: str) -> None:
    with pytest.raises(lpml.UsageError, match=message):
        SIGNATURE.columns(steps)


def test_a_signature_of_objects_is_refused() -> None:
    with pytest.raises(lpml.UsageError, match="'observation' is 'text'"):
        Signature(Step("text", 0, 0.0, 0.0))
