"""Tables against a list of items, and exact save and restore."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lpml
from lpml.nodes.replay import (
    AbstractRemover,
    AbstractSampler,
    Fifo,
    Lifo,
    LowestPriority,
    Oldest,
    Prioritised,
    Sequences,
    Slices,
    TableConfig,
    Uniform,
)
from lpml.nodes.replay.steps import StepStore
from lpml.nodes.replay.table import Table

SIGNATURE = np.zeros((), np.int64)


@dataclass
class Model:
    """A table as a list of [first value, length, priority, times sampled], oldest first."""

    max_size: int
    lowest: bool
    limit: int | None
    items: list[list[Any]] = field(default_factory=list)

    def insert(self, value: int, length: int, priority: float) -> None:
        if len(self.items) == self.max_size:
            ranks = [item[2] if self.lowest else 0 for item in self.items]
            del self.items[ranks.index(min(ranks))]
        self.items.append([value, length, priority, 0])

    def sampled(self, values: list[int]) -> None:
        for value in values:
            item = next(item for item in self.items if item[0] == value)
            item[3] += 1
            if item[3] == self.limit:
                self.items.remove(item)


class Driver:
    """A table that is fed with the numbers 0, 1, 2, ... as steps."""

    def __init__(self, config: TableConfig) -> None:
        self.store = StepStore(config.signature, config.steps)
        self.table = Table(config, self.store)
        self.count = 0

    def insert(self, lengths: list[int], priorities: list[float]) -> list[int]:
        """Windows that overlap by one step; returns their first values."""
        spans = np.array(lengths)
        starts = np.concatenate([[0], np.cumsum(spans)[:-1]])
        rows = self.store.append(
            [np.arange(self.count, self.count + spans.sum())], int(spans.sum())
        )
        self.store.link(rows, np.array([len(rows)]))
        self.table.insert(rows[starts], spans, np.array(priorities))
        self.store.release(rows)
        values = (self.count + starts).tolist()
        self.count += int(spans.sum())
        return [int(value) for value in values]

    def sample(self, count: int) -> Any:
        draw = self.table.draw(count, hold=True)
        sample = self.table.read(draw)
        self.table.done(draw)
        return sample

    def items(self) -> list[tuple[int, int, float, int]]:
        """Everything in the table, oldest first, read through its steps."""
        table = self.table
        slots = table._order.all()
        first = self.store.columns[0][table.slots.starts[slots]]
        columns = (
            first,
            table.slots.lengths[slots],
            table.slots.priorities[slots],
            table.slots.times[slots],
        )
        return list(zip(*(column.tolist() for column in columns), strict=True))


operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("insert"),
            st.lists(
                st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0, 2.0])),
                min_size=1,
                max_size=9,
            ),
        ),
        st.tuples(st.just("sample"), st.integers(1, 6)),
        st.tuples(st.just("update"), st.sampled_from([0.0, 0.25, 3.0])),
        st.tuples(st.just("remove"), st.integers(0, 5)),
        st.tuples(st.just("restore"), st.just(0)),
    ),
    max_size=25,
)
samplers = st.sampled_from([Uniform(), Prioritised(0.7), Prioritised(0.0), Fifo(), Lifo()])


@settings(max_examples=150)
@given(operations, samplers, st.booleans(), st.sampled_from([None, 1, 3]), st.integers(1, 12))
def test_a_table_is_a_list_of_items(
    moves: list[Any], sampler: AbstractSampler, lowest: bool, limit: int | None, max_size: int
) -> None:
    remover: AbstractRemover = LowestPriority() if lowest else Oldest()
    config = TableConfig(
        "t",
        SIGNATURE,
        max_size,
        Sequences(4),
        sampler=sampler,
        remover=remover,
        max_times_sampled=limit,
    )
    driver, model = Driver(config), Model(max_size, lowest, limit)
    keys: dict[int, int] = {}  # {first value: key}
    for move, amount in moves:
        table = driver.table
        if move == "insert":
            values = driver.insert([n for n, _ in amount], [p for _, p in amount])
            for value, (length, priority) in zip(values, amount, strict=True):
                model.insert(value, length, priority)
        elif move == "sample" and table.can_sample(amount):
            weights = [
                (item[2] ** sampler.exponent if item[2] else 0.0)
                if isinstance(sampler, Prioritised)
                else 1.0
                for item in model.items
            ]
            sample = driver.sample(amount)
            values = sample.data.steps[:, 0].tolist()
            check_sample(sample, values, model, weights, sampler, limit)
            keys.update(zip(values, sample.info.keys.tolist(), strict=True))
            model.sampled(values)
        elif move == "update" and keys:
            chosen = list(keys)[::2]
            table.update_priorities(
                np.array([keys[value] for value in chosen]), np.full(len(chosen), amount)
            )
            for item in model.items:
                if item[0] in chosen:
                    item[2] = amount
        elif move == "remove" and keys:
            value = list(keys)[amount % len(keys)]
            there = any(item[0] == value for item in model.items)
            assert table.remove(np.array([keys[value]])) == there
            model.items = [item for item in model.items if item[0] != value]
        elif move == "restore":
            state, steps = table.save(), driver.store.save()
            driver.store = StepStore(config.signature, config.steps)
            driver.store.restore(steps)
            driver.table = Table(config, driver.store)
            driver.table.restore(state)
        assert driver.items() == [tuple(item) for item in model.items]
        assert driver.table.size == len(model.items)
        used = driver.store.capacity - driver.store.available
        assert used == sum(item[1] for item in model.items)  # nothing leaks


def check_sample(
    sample: Any,
    values: list[int],
    model: Model,
    weights: list[float],
    sampler: AbstractSampler,
    limit: int | None,
) -> None:
    items = {item[0]: item for item in model.items}
    order = [item[0] for item in model.items]
    if isinstance(sampler, Fifo):
        assert values == [v for v in order for _ in range(left(items[v], limit))][: len(values)]
    elif isinstance(sampler, Lifo):
        last = [v for v in order[::-1] for _ in range(left(items[v], limit))]
        assert values == last[: len(values)]
    elif limit is None:
        expected = [weights[order.index(value)] / sum(weights) for value in values]
        np.testing.assert_allclose(sample.info.probabilities, expected)
    if isinstance(sampler, Prioritised):
        assert all(items[value][2] > 0 for value in values)
    for row, value in enumerate(values):
        length = items[value][1]
        assert sample.data.mask[row].tolist() == [t < length for t in range(4)]
        assert sample.data.steps[row, :length].tolist() == list(range(value, value + length))
        assert not sample.data.steps[row, length:].any()
        assert sample.info.priorities[row] == items[value][2]


def left(item: list[Any], limit: int | None) -> int:
    return 6 if limit is None else limit - int(item[3])


@pytest.mark.parametrize("sampler", [Uniform(), Prioritised(), Fifo(), Lifo()])
def test_a_restored_table_yields_the_same_samples(sampler: AbstractSampler) -> None:
    config = TableConfig("t", SIGNATURE, 50, Sequences(4), sampler=sampler, seed=3)
    one, other = Driver(config), Driver(config)
    rng = np.random.default_rng(0)
    for _ in range(30):
        one.insert([3, 4, 2], rng.random(3).tolist())
        one.sample(5)
    other.store.restore(one.store.save())
    other.table.restore(one.table.save())
    other.count = one.count
    for _ in range(30):
        first, second = one.sample(7), other.sample(7)
        np.testing.assert_array_equal(first.data.steps, second.data.steps)
        np.testing.assert_array_equal(first.info.keys, second.info.keys)
        np.testing.assert_array_equal(first.info.probabilities, second.info.probabilities)
        for driver in (one, other):
            driver.insert([1, 4], [0.1, 2.0])
            driver.table.update_priorities(first.info.keys, np.arange(7) * 0.5)


def test_uniform_draws_are_uniform_among_holes() -> None:
    driver = Driver(TableConfig("t", SIGNATURE, 40, Sequences(4)))
    driver.insert([1] * 40, [1.0] * 40)
    driver.table.remove(driver.table.keys()[::2])
    counts = np.bincount(driver.sample(40_000).data.steps[:, 0], minlength=40)
    assert not counts[::2].any()
    assert np.abs(counts[1::2] - 2000).max() < 250


def test_slices_are_uniform_over_all_windows() -> None:
    config = TableConfig("t", SIGNATURE, 10, Sequences(3), sampler=Slices(3), max_steps=200)
    driver = Driver(config)
    driver.insert([2, 3, 9], [1.0] * 3)  # 0, 1 and 7 windows
    driver.insert([5], [1.0])  # 3 windows
    sample = driver.sample(22_000)
    steps = sample.data.steps
    assert sample.data.mask.all()
    assert (np.diff(steps, axis=1) == 1).all()
    starts, counts = np.unique(steps[:, 0], return_counts=True)
    assert starts.tolist() == [2, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16]
    assert np.abs(counts - 2000).max() < 250
    assert sample.info.probabilities[0] == pytest.approx(1 / 11)


def test_slices_cross_from_one_stretch_of_rows_to_another() -> None:
    config = TableConfig("t", SIGNATURE, 2, Sequences(4), sampler=Slices(4), max_steps=40)
    driver = Driver(config)
    store = driver.store
    scattered = store.append([np.zeros(30, np.int64)], 30)
    store.release(scattered[::3])
    rows = store.append([np.arange(10)], 10)
    store.link(rows, np.array([len(rows)]))
    driver.table.insert(rows[:1], np.array([10]), np.ones(1))
    steps = driver.sample(200).data.steps
    assert (np.diff(steps, axis=1) == 1).all()
    assert set(steps[:, 0].tolist()) == set(range(7))


def test_an_update_of_a_repeated_key_takes_the_last() -> None:
    driver = Driver(TableConfig("t", SIGNATURE, 5, Sequences(4), sampler=Prioritised(1.0)))
    driver.insert([1, 1], [1.0, 1.0])
    key = driver.table.keys()[0]
    assert (
        driver.table.update_priorities(np.array([key, key, 10_003]), np.array([9.0, 0.5, 1.0])) == 2
    )
    assert [item[2] for item in driver.items()] == [0.5, 1.0]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e101])
def test_a_priority_that_is_no_priority_is_refused(bad: float) -> None:
    driver = Driver(TableConfig("t", SIGNATURE, 5, Sequences(4), sampler=Prioritised()))
    driver.insert([1, 1], [1.0, 2.0])
    with pytest.raises(lpml.UsageError, match="'t'"):
        driver.table.update_priorities(driver.table.keys(), np.array([1.0, bad]))
    assert [item[2] for item in driver.items()] == [1.0, 2.0]


def test_a_key_is_never_used_again() -> None:
    driver = Driver(TableConfig("t", SIGNATURE, 3, Sequences(4)))
    seen: set[int] = set()
    for _ in range(5):
        driver.insert([1, 1, 1], [1.0] * 3)
        keys = set(driver.table.keys().tolist())
        assert not keys & seen
        assert driver.table.update_priorities(np.array(sorted(seen), int), np.ones(len(seen))) == 0
        seen |= keys
