"""Entries of many environments as rows, one environment after the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lpml.nodes.replay.signature import Array, Floats, Ints


class Rows(NamedTuple):
    """Steps of E environments, one environment after the other."""

    columns: list[Array]
    """`[N, ...]` per field."""
    priorities: Floats | None
    """`[N]`, where steps have one."""
    counts: Ints
    """`[E]`: rows of each environment; their sum is N."""
    ended: Ints
    """`[S]`: environments whose episodes ended, in order; repeated where several did."""
    ends: Ints
    """`[S]`: before which of its rows each of these ended."""


def lay_out(entries: Array) -> Array:
    """`[K, E, ...]` as rows `[E * K, ...]`, a copy."""
    if entries.shape[1] == 1:
        only: Array = entries[:, 0].copy()
        return only
    rows: Array = np.empty((entries.shape[1], len(entries), *entries.shape[2:]), entries.dtype)
    rows[:] = entries.swapaxes(0, 1)
    return rows.reshape(-1, *entries.shape[2:])


def take_rows(buffer: Array, rows: Ints) -> Array:
    flat = buffer.reshape(-1, *buffer.shape[2:])
    return np.take(flat, rows, axis=0, mode="clip")  # clip spares numpy a buffered copy
