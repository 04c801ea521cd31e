"""Checking a program: every fault at once, who holds whom, and what a node is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import Node, Program
from lpml.graph import Edge, check, edges, examine, loads, payload


class Counter:
    def next(self) -> int:
        return 1


class Worker:
    def __init__(
        self, counter: Counter | None, *rest: Any, options: Any = None, **more: Any
    ) -> None: ...

    def run(self) -> None: ...


def test_a_sound_program_has_no_faults() -> None:
    program = Program("p")
    counter = program.add_node(Node(Counter))
    program.add_node(Node(Worker, counter))
    assert check(program) == ()
    assert examine(program).warnings == ()


def test_a_program_without_nodes_is_a_fault() -> None:
    assert check(Program("p")) == ("program 'p' has no nodes; add one with add_node",)


def test_every_fault_is_reported_at_once() -> None:
    program = Program("p")
    counter = program.add_node(Node(Counter))
    elsewhere = Program("q").add_node(Node(Counter))
    lost = Node(Counter).handle()
    items: list[Any] = [counter]
    program.add_node(Node(Worker, counter, options={"lock": [threading.Lock()]}))
    program.add_node(Node(Worker, elsewhere))
    program.add_node(Node(Worker, counter, lost))
    program.add_node(Node.declare(Worker))
    program.add_node(Node(Worker, counter, items))
    items[0] = threading.Lock()
    first, second, third, fourth, fifth = check(program)
    assert "worker/0: options['lock'][0] cannot be sent to a node: it is a _thread.lock" in first
    assert "worker/1: parameter 'counter' holds a handle of counter/0 (Counter), which" in second
    assert "belongs to another program" in second
    assert "worker/2: rest[0]: the handle of a node not yet added (Counter)" in third
    assert "worker/3 (Worker): declared without arguments and never given any" in fourth
    assert "worker/4: rest[0][0] cannot be sent" in fifth


def test_values_changed_after_adding_are_checked_again() -> None:
    class Pool:
        def __init__(self, counters: list[Counter]) -> None: ...

        def run(self) -> None: ...

    program = Program("p")
    counters = [program.add_node(Node(Counter))]
    program.add_node(Node(Pool, counters))
    counters.append(3)  # type: ignore[arg-type]
    assert "parameter 'counters[1]' of Pool expects Counter" in check(program)[0]


def test_a_node_that_nothing_calls_and_that_does_nothing_is_a_warning() -> None:
    program = Program("p")
    program.add_node(Node(Counter))
    assert check(program) == ()
    (warning,) = examine(program).warnings
    assert "counter/0: no node holds its handle and Counter has no run()" in warning


def test_edges_are_found_by_parameter() -> None:
    program = Program("p")
    one, two, three = (program.add_node(Node(Counter)) for _ in range(3))

    def held() -> int:
        return two.next()

    shared = [three]
    options = {"a": [held], "b": shared}
    program.add_node(Node(Worker, one, two.next, one, shared, options=options, extra=one))
    assert edges(program) == tuple(
        Edge("worker/0", target, parameter)
        for target, parameter in [
            ("counter/0", "counter"),
            ("counter/1", "rest"),
            ("counter/0", "rest"),
            ("counter/2", "rest"),
            ("counter/1", "options"),
            ("counter/2", "options"),
            ("counter/0", "extra"),
        ]
    )


def test_a_service_that_is_a_function_may_hold_handles_itself() -> None:
    program = Program("p")
    counter = program.add_node(Node(Counter))

    def make() -> Worker:
        return Worker(counter)

    program.add_node(Node(make))
    assert edges(program) == (Edge("worker/0", "counter/0", "service"),)


def test_cycles_have_edges_both_ways() -> None:
    program = Program("p")
    nodes: list[Node[..., Worker]] = [Node.declare(Worker) for _ in range(2)]
    for node in nodes:
        program.add_node(node)
    nodes[0].configure(None, peer=nodes[1].handle())
    nodes[1].configure(None, peer=nodes[0].handle())
    assert [(edge.source, edge.target) for edge in edges(program)] == [
        ("worker/0", "worker/1"),
        ("worker/1", "worker/0"),
    ]


def test_edges_of_a_faulty_program_are_an_error() -> None:
    program = Program("p")
    program.add_node(Node.declare(Worker))
    with pytest.raises(lpml.GraphError, match="never given any"):
        edges(program)


def test_a_payload_is_what_makes_the_service() -> None:
    program = Program("p")
    counter = program.add_node(Node(Counter))
    weights = np.arange(3.0)
    program.add_node(Node(Worker, counter, weights, options=[counter.next]))
    pickled = payload(program.nodes[1])
    assert pickled.handles == ("counter/0",)
    client = Counter()
    service, args, kwargs = as_triple(loads(pickled.data, {"counter/0": client}.__getitem__))
    assert service.__name__ == "Worker"
    assert args[0] is client
    np.testing.assert_array_equal(args[1], weights)
    assert kwargs["options"][0]() == 1
    args[1][0] = 7.0  # its own copy, and one that may be written
    assert weights[0] == 0.0


def as_triple(value: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    service, args, kwargs = value
    return service, args, kwargs


def test_a_payload_that_cannot_be_pickled_names_node_and_parameter() -> None:
    program = Program("p")
    counter = program.add_node(Node(Counter))
    program.add_node(Node(Worker, counter, options=threading.Lock()))
    with pytest.raises(lpml.GraphError, match=r"^worker/0: options cannot be sent to a node"):
        payload(program.nodes[1])


def test_checking_copies_no_large_array() -> None:
    import tracemalloc

    program = Program("p")
    program.add_node(Node(Worker, None, np.zeros(4_000_000)))
    tracemalloc.start()
    try:
        assert len(check(program)) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
