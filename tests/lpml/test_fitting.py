"""Whether the arguments of a node fit what the annotations of its service say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)

import numpy as np
import pytest

from lpml import Node, Program

if TYPE_CHECKING:
    from decimal import Decimal
from tests.lpml.declared import (
    Counter,
    Learner,
    Prioritised,
    Replay,
    T,
    Table,
    accepts,
    faults_of,
    handle_of,
)

Number = TypeVar("Number", int, float)


Seed = NewType("Seed", int)


Counted = TypeVar("Counted", bound=Counter)


def test_arguments_must_fit_the_signature() -> None:
    replay = handle_of(Replay, 3)
    (fault,) = faults_of(Learner, replay, larning_rate=3)
    assert fault == (
        "learner/0: Learner has no parameter 'larning_rate'; there is lr, replay; "
        "the signature is Learner(replay, *, lr=0.001)"
    )
    assert "did you mean 'capacity'" in faults_of(Replay, capasity=3)[0]
    assert "missing a required argument: 'replay'" in faults_of(Learner)[0]
    assert "too many positional arguments" in faults_of(Learner, replay, 1e-3)[0]


def test_a_handle_must_be_of_the_service_that_the_parameter_names() -> None:
    assert faults_of(Learner, handle_of(Prioritised, 3)) == ()
    (fault,) = faults_of(Learner, handle_of(Counter))
    assert fault == (
        "learner/0: parameter 'replay' of Learner expects Replay, but was given a handle of "
        "counter/0 (Counter); pass what fits, or correct the annotation"
    )


def test_all_faults_of_a_node_are_reported_together() -> None:
    faults = faults_of(Learner, 3, lr="fast")
    assert len(faults) == 2
    assert "'replay' of Learner expects Replay, but was given 3 (int)" in faults[0]
    assert "'lr' of Learner expects float, but was given 'fast' (str)" in faults[1]


def test_a_node_in_place_of_its_handle_gets_its_own_advice() -> None:
    (fault,) = faults_of(Learner, Node(Replay, 3))
    assert "pass what add_node returned, or node.handle(), not the Node" in fault


class Point(NamedTuple):
    x: int


class Options(TypedDict):
    size: int


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (float, [1.0, 1, np.float32(1), np.array(1.0)], ["1", None, np.ones(2), 1j]),
        (int, [1, True, np.int64(1)], [1.5, "1", np.float32(1)]),
        (complex, [1, 1j, np.complex64(1)], ["1"]),
        (bool, [True, np.bool_(True)], [1, "yes"]),
        (str, ["a"], [b"a", None]),
        (None, [None], [0]),
        (Any, [None, 1, object()], []),
        (object, [None, 1], []),
        (Optional[int], [1, None], ["1"]),  # noqa: UP045
        (Union[int, str], [1, "1"], [1.5]),  # noqa: UP007
        (int | None, [1, None], ["1"]),
        (Literal["a", 1], ["a", 1], ["b", True, 2]),
        (list[int], [[], [1]], [["1"], (1,), 1]),
        (Sequence[int], [[1], (1,), range(3)], [[1, "2"], {1}, 3]),
        (Iterable[int], [[1], {1}, iter([1])], [["a"], 3]),
        (dict[str, list[int]], [{}, {"a": [1]}], [{1: [1]}, {"a": ["1"]}, []]),
        (Mapping[str, int], [{"a": 1}], [{"a": "1"}]),
        (tuple[int, str], [(1, "a")], [(1, 2), (1,), [1, "a"]]),
        (tuple[int, ...], [(), (1, 2)], [("a",)]),
        (tuple[()], [()], [(1,)]),
        (set[int], [{1}], [{"a"}, [1]]),
        (type[Replay], [Replay, Prioritised], [Counter, Replay(1), 3]),
        (type, [int], [3]),
        (Callable[[int], int], [abs, lambda x: x, Counter().next], [3, lambda: 0]),
        (Callable[..., int], [abs, int], ["abs"]),
        (Callable, [abs], [3]),
        (Annotated[int, "odd"], [1], ["1"]),
        (Seed, [1], ["1"]),
        (Number, [1, 1.5], ["1"]),
        (Counted, [Counter()], [3]),
        (T, [3, "a"], []),
        (Point, [Point(1)], [(1,)]),
        (Options, [{"size": 1}], [{}, {"size": "1"}, 3]),
        (Table[int], [Table(1)], [3]),
        (np.ndarray, [np.ones(2)], [[1.0]]),
        ("NoSuchName", [3], []),
        (list["NoSuchName"], [[3]], []),  # type: ignore[name-defined]  # noqa: F821
    ],
)
def test_values_must_fit_annotations(
    annotation: Any, good: list[object], bad: list[object]
) -> None:
    assert [value for value in good if not accepts(annotation, value)] == []
    assert [value for value in bad if accepts(annotation, value)] == []


def test_the_path_inside_an_argument_is_named() -> None:
    class Pool:
        def __init__(self, workers: dict[str, list[Replay]]) -> None: ...

    (fault,) = faults_of(Pool, {"a": [handle_of(Replay, 1), handle_of(Counter)]})
    assert "parameter \"workers['a'][1]\" of Pool expects Replay" in fault


def test_variadic_parameters_are_checked_one_by_one() -> None:
    class Many:
        def __init__(self, *replays: Replay, **rates: float) -> None: ...

    replay = handle_of(Replay, 1)
    assert faults_of(Many, replay, replay, a=1, b=2.0) == ()
    assert "'replays[1]'" in faults_of(Many, replay, 3)[0]
    assert "'b'" in faults_of(Many, a=1, b="x")[0]


def test_what_only_type_checkers_can_evaluate_is_passed_over_and_the_rest_is_checked() -> None:
    class Bank:
        def __init__(self, amount: Decimal, owner: str) -> None: ...

    assert faults_of(Bank, 3, "me") == ()
    assert "'owner' of Bank expects str" in faults_of(Bank, 3, 3)[0]


def test_dataclasses_are_checked_as_services_and_where_they_hold_handles() -> None:
    @dataclass
    class Config:
        replay: Replay
        others: list[Replay] = field(default_factory=list)
        sloppy: int = None  # type: ignore[assignment]

    @dataclass
    class Trainer:
        config: Config
        batch: int = 32

    replay, counter = handle_of(Replay, 1), handle_of(Counter)
    assert faults_of(Trainer, Config(replay, [replay])) == ()
    assert "'config.replay'" in faults_of(Trainer, Config(counter))[0]  # type: ignore[arg-type]
    fault = faults_of(Trainer, Config(replay, [counter]))[0]  # type: ignore[list-item]
    assert "'config.others[0]' of Trainer expects Replay" in fault
    assert "'batch'" in faults_of(Trainer, Config(replay), batch="big")[0]


class Source(Protocol):
    def sample(self, size: int) -> list[float]: ...


class Stepper(Protocol):
    def next(self, step: int = 1) -> int: ...


class Sized(Protocol):
    limit: int


def test_protocols_are_fitted_by_structure() -> None:
    replay, counter = handle_of(Replay, 1), handle_of(Counter)
    assert accepts(Source, replay)
    assert accepts(Stepper, counter)
    assert accepts(Source, Replay(1))
    assert accepts(Sized, Counter())
    assert not accepts(Source, counter)
    assert not accepts(Source, 3)
    assert not accepts(Sized, counter)  # attributes are not served


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (lambda self: None, "takes no parameter 'size'"),
        (lambda self, count: None, "calls its parameter 'count', not 'size'"),
        (lambda self, size, more: None, "requires 'more'"),
        (lambda self, *, size: None, "takes no parameter 'size'"),
        (lambda self, size, more=1: None, ""),
        (lambda self, *args, **kwargs: None, ""),
    ],
)
def test_a_method_must_take_what_the_protocol_passes(method: Callable[..., Any], why: str) -> None:
    service = type("Service", (), {"sample": method})

    class Reader:
        def __init__(self, source: Source) -> None: ...

    handle = Program("p").add_node(Node(service))
    text = "".join(faults_of(Reader, handle))
    assert (f"sample() {why}" in text) if why else not text


def test_a_method_must_return_what_the_protocol_promises() -> None:
    class Words:
        def next(self, step: int = 1) -> str:
            return ""

    class Reader:
        def __init__(self, counter: Stepper) -> None: ...

    assert "next() returns str, not int" in faults_of(Reader, handle_of(Words))[0]


def test_a_method_of_a_handle_is_a_callable() -> None:
    counter = handle_of(Counter)
    assert accepts(Callable[[int], int], counter.next)
    assert accepts(Callable[[], int], counter.next)
    assert not accepts(Callable[[int, int], int], counter.next)
    assert not accepts(Callable[[int], int], counter)
    assert not accepts(int, counter.next)
