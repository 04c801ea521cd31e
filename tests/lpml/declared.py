"""Services, and how to see whether a program takes a node, for tests of declaring programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    TypeVar,
)

import lpml
from lpml import Node, Program

if TYPE_CHECKING:
    pass


T = TypeVar("T")


class Counter:
    limit = 3

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def next(self, step: int = 1) -> int:
        self.value += step
        return self.value

    def _reset(self) -> None:
        self.value = 0


class Replay:
    def __init__(self, capacity: int, *, seed: int = 0) -> None: ...

    def sample(self, size: int) -> list[float]:
        return [0.0] * size


class Prioritised(Replay):
    pass


class Learner:
    def __init__(self, replay: Replay, *, lr: float = 1e-3) -> None: ...

    def run(self) -> None: ...


class Table(Generic[T]):
    def __init__(self, initial: T) -> None: ...

    def get(self) -> T:
        raise NotImplementedError


def faults_of(service: Callable[..., Any], *args: object, **kwargs: object) -> tuple[str, ...]:
    """The messages with which a program refuses a node, checked statically by nobody."""
    program = Program("p")
    try:
        program.add_node(Node(service, *args, **kwargs))
    except lpml.GraphError as error:
        assert program.nodes == ()
        return error.faults
    return ()


def accepts(annotation: Any, value: object) -> bool:
    """Whether a parameter with this annotation takes this value."""

    class Service:
        def __init__(self, x: Any) -> None: ...

    Service.__init__.__annotations__["x"] = annotation
    return not faults_of(Service, value)


def handle_of(service: Callable[..., T], *args: object) -> T:
    return Program("other").add_node(Node(service, *args))
