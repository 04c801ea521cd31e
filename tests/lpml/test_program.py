"""Programs: nodes, groups, names, handles, and what is refused when a node is added."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
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

import lpml
from lpml import Node, Program

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")
Number = TypeVar("Number", int, float)
Seed = NewType("Seed", int)


class Counter:
    limit = 3

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def next(self, step: int = 1) -> int:
        self.value += step
        return self.value

    def _reset(self) -> None:
        self.value = 0


Counted = TypeVar("Counted", bound=Counter)


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


# --- names and groups ----------------------------------------------------------------------------


def test_a_node_is_named_by_its_class_and_counted() -> None:
    class HTTPServer2:
        pass

    program = Program("p")
    for service in (Counter, HTTPServer2, Counter):
        program.add_node(Node(service))
    assert [one.name for one in program.nodes] == ["counter/0", "http_server2/0", "counter/1"]


def test_groups_nest_and_count_their_own_nodes() -> None:
    program = Program("p")
    with program.group("outer"):
        program.add_node(Node(Counter))
        with program.group("inner"):
            program.add_node(Node(Counter))
            program.add_node(Node(Counter))
        program.add_node(Node(Counter))
    with program.group("outer"):
        program.add_node(Node(Counter))
    names = [one.name for one in program.nodes]
    assert names == ["outer/0", "outer/inner/0", "outer/inner/1", "outer/1", "outer/2"]
    assert [one.index for one in program.nodes] == [0, 0, 1, 1, 2]
    assert program.nodes[1].group == "outer/inner"


def test_a_label_replaces_the_innermost_group() -> None:
    program = Program("p")
    program.add_node(Node(Counter), label="steps")
    with program.group("a"), program.group("b"):
        program.add_node(Node(Counter), label="c")
    with program.group("a"):
        program.add_node(Node(Counter), label="c")
    assert [one.name for one in program.nodes] == ["steps/0", "a/c/0", "c/0"]


@pytest.mark.parametrize("label", ["", "a/b", "a b", "ä", None, 3])
def test_a_name_with_other_characters_is_refused(label: Any) -> None:
    with pytest.raises(lpml.GraphError, match="use letters, digits"):
        Program(label)
    with pytest.raises(lpml.GraphError, match="use letters, digits"):
        Program("p").group(label)


def test_nodes_that_would_share_a_log_file_are_refused() -> None:
    program = Program("p")
    with program.group("a"), program.group("b"):
        program.add_node(Node(Counter))
    with pytest.raises(lpml.GraphError, match="a-b/0 and a/b/0 would share"):
        program.add_node(Node(Counter), label="a-b")


def test_resources_and_restart_come_from_the_innermost_group_then_from_the_role() -> None:
    class Actor:
        lpml_resources: ClassVar = lpml.Resources(cpu=0.5)
        lpml_restart: ClassVar = lpml.Restart.always()

    two, three = lpml.Resources(cpu=2), lpml.Resources(cpu=3)
    program = Program("p")
    program.add_node(Node(Actor))
    program.add_node(Node(Counter))
    with program.group("outer", resources=two, restart=lpml.Restart.on_failure()):
        program.add_node(Node(Actor))
        with program.group("inner", resources=three):
            program.add_node(Node(Actor))
    found = [(one.resources.cpu, one.restart.when) for one in program.nodes]
    assert found == [(0.5, "always"), (1, "never"), (2, "on_failure"), (3, "on_failure")]


def test_a_wrong_role_default_is_named() -> None:
    class Actor:
        lpml_resources = 2

    assert "Actor.lpml_resources is 2; give a Resources" in faults_of(Actor)[0]


def test_colocated_groups_share_one_process_with_the_groups_inside() -> None:
    program = Program("p")
    with program.group("a", colocate=True):
        program.add_node(Node(Counter))
        with program.group("b", colocate=True):
            program.add_node(Node(Counter))
    with program.group("c"):
        program.add_node(Node(Counter))
    assert [one.colocation for one in program.nodes] == ["a", "a", None]


def test_a_group_ends_when_its_block_raises() -> None:
    program = Program("p")
    with pytest.raises(ValueError), program.group("a"):
        raise ValueError
    program.add_node(Node(Counter))
    assert program.nodes[0].name == "counter/0"


# --- handles -------------------------------------------------------------------------------------


def test_a_handle_passes_for_its_service() -> None:
    replay = Program("p").add_node(Node(Prioritised, 10))
    assert isinstance(replay, Replay)
    assert not isinstance(replay, Counter)
    assert repr(replay) == "<handle of prioritised/0 (Prioritised)>"
    assert "sample" in dir(replay)
    assert copy.deepcopy([replay])[0] is copy.copy(replay) is replay


def test_a_handle_has_the_public_methods_of_its_service_and_nothing_else() -> None:
    counter: Any = Program("p").add_node(Node(Counter))
    assert counter.next == counter.next
    assert len({counter.next, counter.next}) == 1
    with pytest.raises(AttributeError, match="no method 'nxet'; did you mean 'next'"):
        counter.nxet  # noqa: B018
    for name in ("limit", "_reset"):
        with pytest.raises(AttributeError, match="cannot be reached from another node"):
            getattr(counter, name)
    with pytest.raises(AttributeError):
        counter.value = 3


def test_calling_a_method_while_declaring_says_that_nothing_runs() -> None:
    counter = Program("p").add_node(Node(Counter))
    with pytest.raises(lpml.GraphError, match=r"next\(\) of counter/0 .* nothing runs yet"):
        counter.next()


def test_a_handle_cannot_be_pickled_on_its_own() -> None:
    with pytest.raises(lpml.GraphError, match="pass it as an argument of a Node"):
        pickle.dumps(Program("p").add_node(Node(Counter)))


def test_factories_partials_and_generic_classes_are_services() -> None:
    def make(capacity: int) -> Replay:
        return Replay(capacity)

    program = Program("p")
    made: Any = program.add_node(Node(make, capacity=3))
    partial: Any = program.add_node(Node(functools.partial(Replay, 10), seed=3))
    generic: Any = program.add_node(Node(Table[int], 3))
    assert all(isinstance(one, Replay) for one in (made, partial))
    assert [dir(one) for one in (made, partial, generic)] == [["sample"], ["sample"], ["get"]]
    assert [one.name for one in program.nodes] == ["replay/0", "replay/1", "table/0"]
    assert "has no parameter 'sed'" in faults_of(functools.partial(Replay, 10), sed=3)[0]


# --- what is no program --------------------------------------------------------------------------


def test_a_service_must_be_something_that_makes_an_object() -> None:
    with pytest.raises(lpml.GraphError, match="pass Counter itself, and its arguments after it"):
        Node(Counter())  # type: ignore[arg-type]
    with pytest.raises(lpml.GraphError, match="handle of a node that exists"):
        Node(handle_of(Counter))  # type: ignore[arg-type]
    with pytest.raises(lpml.GraphError, match="annotate what it returns"):
        Node(lambda: Counter())


class Asks:
    async def run(self) -> None: ...

    async def _inner(self) -> None: ...

    @lpml.concurrent
    async def ask(self) -> int:
        return 1

    @staticmethod
    async def items() -> AsyncIterator[int]:
        yield 1


def test_coroutines_among_the_methods_of_a_service_are_refused() -> None:
    program = Program("p")
    for node in (Node(Asks), Node.declare(Asks)):
        with pytest.raises(lpml.GraphError, match="write a plain `def`") as caught:
            program.add_node(node)
        assert [fault.split(" is ")[0] for fault in caught.value.faults] == [
            "asks/0: Asks.ask",
            "asks/0: Asks.items",
        ]
    assert program.nodes == ()


def test_only_nodes_are_added_and_only_once() -> None:
    program, node = Program("p"), Node(Counter)
    with pytest.raises(lpml.GraphError, match="write add_node"):
        program.add_node(Counter)  # type: ignore[arg-type]
    program.add_node(node)
    with pytest.raises(lpml.GraphError, match=r"counter/0 .* was added to this program before"):
        program.add_node(node)
    with pytest.raises(lpml.GraphError, match="another program"):
        Program("q").add_node(node)


def test_a_refused_node_leaves_no_gap_and_can_be_mended() -> None:
    program = Program("p")
    with pytest.raises(lpml.GraphError):
        program.add_node(Node(Replay, "many"))  # type: ignore[arg-type]
    program.add_node(Node(Replay, 3))
    assert [one.name for one in program.nodes] == ["replay/0"]


# --- cycles --------------------------------------------------------------------------------------


class Ping:
    def __init__(self, other: Pong, times: int = 1) -> None: ...


class Pong:
    def __init__(self, other: Ping) -> None: ...


def test_cycles_are_declared_first_and_configured_later() -> None:
    program = Program("p")
    ping = Node.declare(Ping)
    pong = program.add_node(Node(Pong, ping.handle()))
    assert not ping.configured
    ping.configure(pong, times=3)
    assert program.add_node(ping) is ping.handle()
    assert ping.args == (pong,)
    assert ping.kwargs == {"times": 3}


def test_arguments_given_after_adding_are_checked_at_once() -> None:
    program = Program("p")
    ping = Node.declare(Ping)
    program.add_node(ping)
    with pytest.raises(lpml.GraphError, match="ping/0: parameter 'other' of Ping expects Pong"):
        ping.configure(ping.handle())  # type: ignore[arg-type]
    ping.configure(program.add_node(Node(Pong, ping.handle())))
    assert ping.configured


def test_arguments_are_given_once() -> None:
    node = Node(Counter)
    with pytest.raises(lpml.GraphError, match="its arguments were given before"):
        node.configure()
    with pytest.raises(lpml.GraphError, match=r"never given any; call configure\(\)"):
        Node.declare(Counter).args  # noqa: B018


# --- arguments and their annotations -------------------------------------------------------------


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


@pytest.mark.slow
def test_declaring_a_program_imports_neither_numpy_nor_cloudpickle() -> None:
    code = "import sys, lpml; print(*{'numpy', 'jax', 'cloudpickle', 'asyncio'} & {*sys.modules})"
    root = Path(lpml.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
