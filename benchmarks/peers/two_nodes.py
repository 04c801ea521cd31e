"""Two plain nodes; the second writes down when its first call was answered."""

from __future__ import annotations

import os
import time
from pathlib import Path

import lpml


class Greeter:
    def greet(self, name: str) -> str:
        return f"good day, {name}"


class Guest:
    def __init__(self, greeter: Greeter) -> None:
        self._greeter = greeter

    def run(self) -> None:
        self._greeter.greet("guest")
        Path(os.environ["LPML_BENCH_ANSWERED"]).write_text(repr(time.monotonic()))


def program() -> lpml.Program:
    """A guest is greeted."""
    p = lpml.Program("two")
    p.add_node(lpml.Node(Guest, p.add_node(lpml.Node(Greeter))))
    return p
