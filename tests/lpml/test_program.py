"""Programs: nodes, groups, names, handles, and what is refused when a node is added."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
)

import pytest

import lpml
from lpml import Node, Program

if TYPE_CHECKING:
    pass
from tests.lpml.declared import Counter, Prioritised, Replay, Table, faults_of, handle_of

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


@pytest.mark.slow
def test_declaring_a_program_imports_neither_numpy_nor_cloudpickle() -> None:
    code = "import sys, lpml; print(*{'numpy', 'jax', 'cloudpickle', 'asyncio'} & {*sys.modules})"
    root = Path(lpml.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
