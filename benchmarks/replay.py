"""Replay: items a second, side by side with dm-reverb, with a deque and with copying the bytes.

    python -m benchmarks.replay [--repeats 5] [--only cartpole] [--peers reverb] [--json]

A batch is 256 items, an item is one step. The server is in another process ("process") or in the
one that measures ("here"). "Ahead" is lpml's Prefetcher and dm-reverb's dataset, with four batches
under way. Each repetition measures lpml and its peers in turn, and a line is
printed when its repetitions are done. `--only` picks lines whose name has all its words.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import lpml
from benchmarks.common import Measure, Peer, arguments, installed, report, row
from lpml.nodes.replay import (
    AbstractSampler,
    Adder,
    CutTransitions,
    Prefetcher,
    Prioritised,
    Replay,
    Step,
    Steps,
    TableConfig,
    Transitions,
    Uniform,
)

BATCH = 256
KINDS: dict[str, tuple[tuple[int, ...], type, int]] = {  # shape, dtype and items in the table
    "cartpole": ((4,), np.float32, 100_000),
    "84x84x4": ((84, 84, 4), np.uint8, 4_000),
}
SAMPLERS: dict[str, AbstractSampler] = {"uniform": Uniform(), "prioritised": Prioritised()}
TARGETS = {"process": {"insert": 10.0, "sample": 20.0, "dataset": 20.0}, "here": {}}
TARGETS["here"] = dict.fromkeys(TARGETS["process"], 100.0)
WORDS = {"insert": "insert", "sample": "sample, one call after another", "dataset": "sample ahead"}


def batch(kind: str) -> Step:
    """256 steps."""
    shape, dtype, _ = KINDS[kind]
    return Step(
        observation=np.random.default_rng(0).integers(0, 255, (BATCH, *shape)).astype(dtype),
        action=np.zeros(BATCH, np.int32),
        reward=np.ones(BATCH, np.float32),
        discount=np.ones(BATCH, np.float32),
    )


def config(steps: Step, size: int, sampler: AbstractSampler) -> TableConfig:
    step = Step(*(column[0] for column in steps[:4]))
    return TableConfig("t", step, size, Steps(), sampler)


def seconds(function: Callable[[], Any], at_least: float) -> float:
    """Seconds of one call, the mean over a stretch of time."""
    function()
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < at_least:
        for _ in range(10):
            function()
        calls += 10
    return spent / calls


class Naive:
    """What one writes at first: a deque of steps, stacked when they are sampled."""

    def __init__(self, size: int) -> None:
        self._steps: deque[tuple[Any, ...]] = deque(maxlen=size)

    def add(self, steps: Step) -> None:
        self._steps.extend(zip(*steps[:4], strict=True))

    def sample(self) -> tuple[Any, ...]:
        rows = random.choices(self._steps, k=BATCH)
        return tuple(np.stack(column) for column in zip(*rows, strict=True))


@contextlib.contextmanager
def replay_at(where: str, table: TableConfig) -> Iterator[Any]:
    """A replay in this process, or a client of one in another."""
    if where == "here":
        yield Replay([table])
        return
    program = lpml.Program("replay")
    program.add_node(lpml.Node(Replay, [table]))
    with lpml.launch(program, "local_mp", terminal=False) as run:
        yield run.client("replay/0")


def items(flags: Any, kind: str, sampler: str, where: str, peer: Peer | None) -> list[Measure]:
    """Insert and sample: items a second."""
    steps, size = batch(kind), KINDS[kind][2]
    naive = Naive(size)
    for _ in range(size // BATCH + 1):
        naive.add(steps)
    copy = lambda: [column.copy() for column in steps[:4]]  # noqa: E731
    measures = {
        what: Measure(
            f"{where} {kind} {sampler} {words}", "/s", False, TARGETS[where][what], "reverb"
        )
        for what, words in WORDS.items()
    }
    for _ in range(flags.repeats):
        with replay_at(where, config(steps, size, SAMPLERS[sampler])) as replay:
            for _ in range(size // BATCH + 1):
                replay.add("t", steps)
            ours: dict[str, Callable[[], Any]] = {
                "insert": lambda: replay.add("t", steps),
                "sample": lambda: replay.sample("t", BATCH),
            }
            with Prefetcher(
                replay, "t", BATCH, depth=flags.ahead, batches_per_call=flags.together
            ) as batches:
                # in this process there is nothing to wait for, and a learner just draws
                ours["dataset"] = ours["sample"] if where == "here" else lambda: next(batches)
                found = {
                    what: BATCH / seconds(function, flags.seconds)
                    for what, function in ours.items()
                }
        theirs = None
        if peer is not None:
            theirs = peer.ask(
                kind=kind, sampler=sampler, size=size, where=where, seconds=flags.seconds
            )
        for what, measure in measures.items():
            measure.add("lpml", found[what])
            if theirs is not None:
                measure.add("reverb", theirs[what])
            measure.add("memcpy", BATCH / seconds(copy, 0.1))
            if where == "here":
                function = (lambda: naive.add(steps)) if what == "insert" else naive.sample
                measure.add("deque", BATCH / seconds(function, 0.1))
    return list(measures.values())


def scaling(flags: Any) -> list[Measure]:
    """Prioritised sampling and priority updates at a million items against ten thousand."""
    steps = batch("cartpole")
    replays, keys = {}, {}
    for name, size in (("lpml", 1_000_000), ("10k items", 10_000)):
        replays[name] = replay = Replay([config(steps, size, Prioritised())])
        rng = np.random.default_rng(0)
        for _ in range(size // BATCH + 1):
            replay.add("t", steps, rng.random(BATCH))
        keys[name] = [replay.sample("t", BATCH).info.keys for _ in range(200)]
    priorities = np.random.default_rng(1).random(BATCH)
    measures = []
    for what in ("sample", "priority update"):
        measure = Measure(f"a million items, prioritised {what}", "s", True, 1.5, "10k items")
        for _ in range(flags.repeats):
            for name, replay in replays.items():
                turn = iter(keys[name] * 10_000)
                if what == "sample":
                    found = seconds(lambda: replay.sample("t", BATCH), 0.3)  # noqa: B023
                else:
                    found = seconds(
                        lambda: replay.update_priorities("t", next(turn), priorities),  # noqa: B023
                        0.3,
                    )
                measure.add(name, found)
        measures.append(measure)
    return measures


def vector_steps(flags: Any, num_envs: int, where: str) -> list[Measure]:
    """What an actor pays for a vector step of CartPole, flushes included; of 200 one ends."""
    observation = np.zeros((num_envs, 4), np.float32)
    numbers = np.ones(num_envs, np.float32)
    step = Step(observation[0], np.int32(0), np.float32(0), np.float32(0))
    never, ends = np.zeros(num_envs, np.bool_), np.zeros(num_envs, np.bool_)
    ends[-1] = True
    measure = Measure(f"{where} adder, a vector step of {num_envs}", "s")
    for _ in range(flags.repeats):
        with replay_at(where, TableConfig("t", step, 100_000, Transitions())) as replay:
            adder = Adder(replay, {"t": CutTransitions()}, num_envs=num_envs)
            adder.first(observation)
            count, actions = 0, np.zeros(num_envs, np.int32)

            def one() -> None:
                nonlocal count
                count += 1
                last = never if count % max(1, 200 // num_envs) else ends
                adder.add(actions, numbers, numbers, observation, last=last)  # noqa: B023
                if last is ends:
                    adder.first(observation, envs=ends)  # noqa: B023

            measure.add("lpml", seconds(one, flags.seconds))
            adder.close()
    return [measure]


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--peers", default="reverb", help="'' measures lpml alone")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--ahead", type=int, default=4, help="calls under way, where there are")
    parser.add_argument("--together", type=int, default=1, help="batches of such a call")
    flags = parser.parse_args()
    parts: dict[str, Callable[[], list[Measure]]] = {}
    peer = Peer("reverb") if installed([name for name in flags.peers.split(",") if name]) else None
    for where in TARGETS:
        for kind in KINDS:
            for sampler in SAMPLERS:
                parts[f"{where} {kind} {sampler} insert sample"] = (
                    lambda kind=kind, sampler=sampler, where=where: items(
                        flags, kind, sampler, where, peer
                    )
                )
        for num_envs in (1, 8, 32):
            parts[f"{where} adder {num_envs}"] = lambda num_envs=num_envs, where=where: (
                vector_steps(flags, num_envs, where)
            )
    parts["a million items scaling"] = lambda: scaling(flags)
    measures = []
    try:
        for name, part in parts.items():
            if all(word in name for word in flags.only.split()):
                for measure in part():
                    measures.append(measure)
                    cells = row(measure, ["lpml", *(p for p in measure.values if p != "lpml")])
                    print(" | ".join([*cells, *measure.values]), file=sys.stderr, flush=True)
    finally:
        if peer is not None:
            peer.close()
    report("replay, batches of 256", measures, flags.json)


if __name__ == "__main__":
    main()
