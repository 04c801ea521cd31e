"""Logged scalars, as JSON lines: one file per node, one object per call of `log`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import final


@final
class MetricsWriter:
    """Appends `{"time": s, "step": n, name: value, ...}` to a file, line by line.

    Each line is handed to the kernel at once, so what was logged survives a killed node.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", buffering=1)
        self._step = 0

    def write(self, metrics: Mapping[str, float], step: int | None, wall_time: float) -> None:
        """Appends one line. `step=None` counts up from the last step."""
        self._step = self._step + 1 if step is None else int(step)
        row = {"time": round(wall_time, 6), "step": self._step, **metrics}
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self._file.close()
