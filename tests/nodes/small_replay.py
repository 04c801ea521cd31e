"""A small table, inserts for it, and calls that are expected to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import lpml
from lpml.context import entered
from lpml.nodes.replay import (
    Insert,
    Items,
    TableConfig,
)

SIGNATURE = {"x": np.zeros(2, np.float32), "n": np.int64(0)}


def steps(first: int, count: int) -> dict[str, Any]:
    numbers = np.arange(first, first + count)
    return {"x": np.stack([numbers, -numbers], 1).astype(np.float32), "n": numbers}


def insert(
    number: int, first: int, count: int, *, held: int = 0, keep: int = 0, size: int = 1
) -> Insert:
    """All windows of `size` steps that end in the new ones."""
    starts = np.arange(held + count - size + 1)
    starts = starts[starts + size > held]
    return Insert(
        writer=7,
        number=number,
        steps=steps(first, count),
        lanes=np.array([0]),
        counts=np.array([count]),
        held=np.array([held]),
        keep=np.array([keep]),
        items={"t": Items(starts, np.full(len(starts), size), None)},
    )


def table(max_size: int = 100, **changes: Any) -> TableConfig:
    return TableConfig("t", SIGNATURE, max_size, **changes)


class Background:
    """Runs a function on a thread, in the same context."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        scope = lpml.context()

        def run() -> None:
            with entered(scope):
                try:
                    self.value = function()
                except BaseException as error:
                    self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.value
