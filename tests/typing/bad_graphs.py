"""Programs that both type checkers refuse: each line with a comment `error` must be refused,

and no other. After the colon stands what both messages must contain, in any case of letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import lpml


class Replay:
    def __init__(self, capacity: int, *, seed: int = 0) -> None: ...

    def insert(self, item: float) -> None: ...

    def sample(self, size: int) -> list[float]:
        return [0.0] * size


class Counter:
    def next(self) -> int:
        return 0


class Source(Protocol):
    def sample(self, size: int) -> list[float]: ...


class Words:
    def sample(self, size: int) -> list[str]:
        return []


class Learner:
    def __init__(self, replay: Replay, *, lr: float = 1e-3) -> None: ...


class Reader:
    def __init__(self, source: Source) -> None: ...


class Pool:
    def __init__(self, workers: Sequence[Replay], done: Callable[[float], None]) -> None: ...


@dataclass
class Config:
    replay: Replay


def make_replay(capacity: int) -> Replay:
    return Replay(capacity)


program = lpml.Program("bad")
replay = program.add_node(lpml.Node(Replay, 1000))
counter = program.add_node(lpml.Node(Counter))
words = program.add_node(lpml.Node(Words))

# a handle of another service, and the node instead of its handle
lpml.Node(Learner, counter)  # error: Counter
lpml.Node(Learner, lpml.Node(Replay, 1))  # error: Node[
lpml.Node(Learner, Replay)  # error: Replay

# arguments that the constructor does not take, lacks, or takes in another way
lpml.Node(Learner, replay, learning_rate=1e-3)  # error: learning_rate
lpml.Node(Learner)  # error: replay
lpml.Node(Learner, replay, 1e-3)  # error: argument
lpml.Node(Replay, "many")  # error: int
lpml.Node(Replay, 1000, seed=0.5)  # error: float
lpml.Node(make_replay, capacity="5")  # error: int

# structure, containers, methods and configurations
lpml.Node(Reader, counter)  # error: Counter
lpml.Node(Reader, words)  # error: Words
lpml.Node(Pool, [replay, counter], replay.insert)  # error: Counter
lpml.Node(Pool, [replay], replay.sample)  # error: list[float]
lpml.Node(Pool, [replay], replay)  # error: Replay
Config(counter)  # error: Counter

# what a handle has, and what its methods take and return
replay.smaple(3)  # error: smaple
replay.sample("three")  # error: int
text: str = counter.next()  # error: int
wrong: Counter = program.add_node(lpml.Node(Replay, 1000))  # error: Counter

# cycles
later = lpml.Node.declare(Learner)
later.configure(counter)  # error: Counter
later.configure(replay, rate=1)  # error: rate
as_counter: Counter = later.handle()  # error: Counter

# the program itself
program.add_node(Replay)  # error: Node[
program.add_node(counter)  # error: Node[
lpml.Node(3)  # error: argument
program.group("worker", resources={"cpu": 1})  # error: Resources
program.group("worker", cpu=1)  # error: cpu
lpml.Resources(cpus=1)  # error: cpus
