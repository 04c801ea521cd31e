"""Episodes whose observations and rewards count up, and a replay that takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lpml.nodes.replay import (
    Adder,
    Replay,
    Step,
    TableConfig,
)
from lpml.nodes.replay.table import Table

STEP = Step(
    {"pixels": np.zeros(2, np.float32), "t": np.int32(0)}, np.int32(0), np.float32(0), np.float32(0)
)


def observe(t: float) -> dict[str, Any]:
    return {"pixels": np.array([t, -t], np.float32), "t": np.int32(t)}


def make(view: Any, max_size: int = 1000, **changes: Any) -> Replay:
    return Replay([TableConfig("t", STEP, max_size, view, **changes)])


def everything(replay: Replay, name: str = "t") -> Any:
    """All items of a table, oldest first."""
    table: Table = replay._tables[name].table
    slots = table._order.all()
    return table.config.view.gather(
        table.store, table.slots.starts[slots], table.slots.lengths[slots]
    )


def play(adder: Adder, lengths: list[int], cut_off: bool = False) -> list[list[float]]:
    """Episodes whose observations and rewards count up; returns the observations of each."""
    time, episodes = 0, []
    for length in lengths:
        adder.first(observe(time))
        episodes.append([float(time)])
        for step in range(length):
            time += 1
            last = step == length - 1
            discount = 0.0 if last and not cut_off else 1.0
            adder.add(time % 5, float(time), discount, observe(time), last=last)
            episodes[-1].append(float(time))
        time += 1
    return episodes
