"""Simple services, for tests of every launcher."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import lpml


def program_of(*nodes: lpml.Node[..., Any], name: str = "tested") -> lpml.Program:
    """Every node in a group `node`."""
    program = lpml.Program(name)
    for node in nodes:
        program.add_node(node, label="node")
    return program


class Counter:
    """A service without a loop."""

    def __init__(self, start: int = 0) -> None:
        self._count = start

    def add(self, amount: int = 1) -> int:
        self._count += amount
        return self._count


class Waiter:
    """Runs until it is stopped."""

    def run(self) -> None:
        while not lpml.context().should_stop:
            lpml.context().wait(60.0)

    def answer(self) -> str:
        return "here"


class Raiser:
    """Fails where it is told to."""

    def __init__(self, where: str, message: str = "boom") -> None:
        if where == "constructor":
            raise ValueError(message)
        self._message = message

    def run(self) -> None:
        raise ValueError(self._message)


class CanAdd(Protocol):
    def add(self, amount: int = 1) -> int: ...


class NeedsOtherToBuild:
    """Its constructor calls another node, which may not be up yet."""

    def __init__(self, counter: CanAdd) -> None:
        self._count = counter.add(10)

    def count(self) -> int:
        return self._count


class Printer:
    """Prints while it is built, while it serves and while it runs."""

    def __init__(self) -> None:
        print("built")
        self._running = False

    def shout(self, word: str) -> None:
        while not self._running:
            lpml.context().wait(0.01)
        print(word)
        print("trouble", file=sys.stderr)

    def run(self) -> None:
        self._running = True
        lpml.context().wait(60.0)
        print("no end of line", end="")
