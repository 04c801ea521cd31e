"""Replay: items a second, against the obvious deque of steps and against copying the same bytes.

    python -m benchmarks.replay [--repeats 5] [--only cartpole] [--json]

In one process and, with lpml's server in another, over its transport. Every repetition measures
lpml and its peers in turn. A batch is 256 items; an item is one transition.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

import lpml
from benchmarks.common import Measure, arguments, report
from lpml.nodes.replay import (
    AbstractSampler,
    Prioritised,
    Replay,
    Step,
    Steps,
    TableConfig,
    Uniform,
)

BATCH = 256
SHAPES: dict[str, tuple[tuple[int, ...], type]] = {
    "cartpole": ((4,), np.float32),
    "84x84x4": ((84, 84, 4), np.uint8),
}
SAMPLERS: dict[str, AbstractSampler] = {"uniform": Uniform(), "prioritised": Prioritised()}


def batch(shape: tuple[int, ...], dtype: type) -> Step:
    """256 steps."""
    rng = np.random.default_rng(0)
    return Step(
        observation=rng.integers(0, 255, (BATCH, *shape)).astype(dtype),
        action=np.zeros(BATCH, np.int32),
        reward=np.ones(BATCH, np.float32),
        discount=np.ones(BATCH, np.float32),
    )


def config(steps: Step, size: int, sampler: AbstractSampler) -> TableConfig:
    step = Step(*(column[0] for column in steps[:4]))
    return TableConfig("t", step, size, Steps(), sampler)


def seconds(function: Callable[[], Any], at_least: float = 0.2) -> float:
    """Seconds of one call, the best of several stretches."""
    function()
    best, spent = float("inf"), 0.0
    while spent < at_least:
        start = time.perf_counter()
        for _ in range(20):
            function()
        took = time.perf_counter() - start
        best, spent = min(best, took / 20), spent + took
    return best


class Naive:
    """What one writes at first: a deque of steps, stacked when they are sampled."""

    def __init__(self, size: int) -> None:
        self._steps: deque[tuple[Any, ...]] = deque(maxlen=size)

    def add(self, steps: Step) -> None:
        self._steps.extend(zip(*steps[:4], strict=True))

    def sample(self) -> tuple[Any, ...]:
        rows = random.choices(self._steps, k=BATCH)
        return tuple(np.stack(column) for column in zip(*rows, strict=True))


def items(name: str, size: int, repeats: int) -> list[Measure]:
    """Insert and sample by lpml, a deque and memcpy, in one process and out of another."""
    steps = batch(*SHAPES[name])
    measures = []
    for kind, sampler in SAMPLERS.items():
        table = config(steps, size, sampler)
        replay, naive = Replay([table]), Naive(size)
        for _ in range(size // BATCH + 1):
            replay.add("t", steps)
            naive.add(steps)
        with lpml.launch(served(table), "local_mp", terminal=False) as run:
            client = run.client("replay/0")
            for _ in range(size // BATCH + 1):
                client.add("t", steps)
            peers: dict[str, dict[str, Callable[[], Any]]] = {
                "insert": {
                    "lpml": lambda: replay.add("t", steps),  # noqa: B023
                    "process": lambda: client.add("t", steps),  # noqa: B023
                    "deque": lambda: naive.add(steps),  # noqa: B023
                    "memcpy": lambda: [column.copy() for column in steps[:4]],
                },
                "sample": {
                    "lpml": lambda: replay.sample("t", BATCH),  # noqa: B023
                    "process": lambda: client.sample("t", BATCH),  # noqa: B023
                    "deque": naive.sample,
                    "memcpy": lambda: [column.copy() for column in steps[:4]],
                },
            }
            for what, functions in peers.items():
                measure = Measure(f"{name} {kind} {what}", "/s", False, against="deque")
                for _ in range(repeats):
                    for peer, function in functions.items():
                        measure.add(peer, BATCH / seconds(function))
                measures.append(measure)
    return measures


def served(table: TableConfig) -> lpml.Program:
    program = lpml.Program("replay")
    program.add_node(lpml.Node(Replay, [table]))
    return program


def scaling(repeats: int) -> list[Measure]:
    """Prioritised sampling and priority updates at a million items against ten thousand."""
    steps = batch(*SHAPES["cartpole"])
    replays, keys = {}, {}
    for peer, size in (("lpml", 1_000_000), ("10k items", 10_000)):
        replays[peer] = replay = Replay([config(steps, size, Prioritised())])
        rng = np.random.default_rng(0)
        for _ in range(size // BATCH + 1):
            replay.add("t", steps, rng.random(BATCH))
        keys[peer] = [replay.sample("t", BATCH).info.keys for _ in range(200)]
    measures = []
    priorities = np.random.default_rng(1).random(BATCH)
    for what in ("prioritised sample", "priority update"):
        measure = Measure(f"{what}, 1 M items", "s", True, 1.5, "10k items")
        for _ in range(repeats):
            for peer, replay in replays.items():
                turn = iter(keys[peer] * 1000)
                if what == "prioritised sample":
                    found = seconds(lambda: replay.sample("t", BATCH))  # noqa: B023
                else:
                    found = seconds(
                        lambda: replay.update_priorities("t", next(turn), priorities)  # noqa: B023
                    )
                measure.add(peer, found)
        measures.append(measure)
    return measures


def main() -> None:
    flags = arguments(__doc__, repeats=5).parse_args()
    measures = []
    for name, size in (("cartpole", 100_000), ("84x84x4", 4_000)):
        if flags.only in name:
            measures += items(name, size, flags.repeats)
    if flags.only in "scaling":
        measures += scaling(flags.repeats)
    report("replay, batches of 256", measures, flags.json)


if __name__ == "__main__":
    main()
