"""Programs that both type checkers accept, and what they infer of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from typing_extensions import assert_type

import lpml

T = TypeVar("T")


class Replay:
    def __init__(self, capacity: int, *, seed: int = 0) -> None: ...

    def insert(self, item: float) -> None: ...

    def sample(self, size: int) -> list[float]:
        return [0.0] * size


class Prioritised(Replay):
    pass


class Source(Protocol):
    def sample(self, size: int) -> list[float]: ...


class Learner:
    def __init__(self, replay: Replay, *, lr: float = 1e-3) -> None: ...

    def step(self) -> int:
        return 0


class Evaluator:
    def __init__(self, source: Source, learners: Sequence[Learner]) -> None: ...

    @lpml.concurrent
    def score(self, name: str, weight: float = 1.0) -> float:
        return weight


class Table(Generic[T]):
    def __init__(self, initial: T) -> None: ...

    def get(self) -> T:
        raise NotImplementedError


@dataclass
class Config:
    learner: Learner
    batch: int = 32


class Trainer:
    def __init__(self, config: Config, insert: Callable[[float], None]) -> None: ...


class Left:
    def __init__(self, right: Right) -> None: ...

    def ping(self) -> int:
        return 1


class Right:
    def __init__(self, left: Left, steps: int) -> None: ...


def make_replay(capacity: int) -> Replay:
    return Replay(capacity)


program = lpml.Program("good")

replay = program.add_node(lpml.Node(Replay, 1000, seed=1))
assert_type(replay, Replay)

learner = program.add_node(lpml.Node(Learner, replay, lr=1))
assert_type(learner, Learner)

with program.group("evaluator", resources=lpml.Resources(cpu=0.5), restart=lpml.Restart.never()):
    with program.group("inner", colocate=True):
        evaluator = program.add_node(lpml.Node(Evaluator, replay, [learner]), label="best")
assert_type(evaluator, Evaluator)

prioritised = program.add_node(lpml.Node(Prioritised, 10))
assert_type(prioritised, Prioritised)
program.add_node(lpml.Node(Learner, prioritised))

made = program.add_node(lpml.Node(make_replay, capacity=5))
assert_type(made, Replay)

table = program.add_node(lpml.Node(Table[int], 3))
assert_type(table, Table[int])

program.add_node(lpml.Node(Trainer, Config(learner), replay.insert))

left = lpml.Node.declare(Left)
assert_type(left.handle(), Left)
right = lpml.Node(Right, left.handle(), steps=3)
left.configure(right.handle())
assert_type(program.add_node(left), Left)
assert_type(program.add_node(right), Right)


def use() -> None:
    """What a client of each handle is: never called here, as nothing runs."""
    assert_type(replay.sample(3), list[float])
    assert_type(evaluator.score("a"), float)
    assert_type(table.get(), int)
