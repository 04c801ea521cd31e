"""Draws the curves of a run; the one file of the core that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpml.errors import LaunchError, UsageError, closest
from lpml.record.folder import RunFolder, disk_error
from lpml.record.metrics import MetricsFollower

Curves = dict[str, dict[str, tuple[list[int], list[float]]]]
"""`{metric: {node: (steps, values)}}`"""

_COLUMNS = 3
_MAX_LEGEND = 12


def read_curves(folder: RunFolder) -> Curves:
    """Every curve that the nodes of a run have logged so far."""
    curves: Curves = {}
    for node, row in MetricsFollower(folder).poll():
        for metric, value in row.metrics.items():
            steps, values = curves.setdefault(metric, {}).setdefault(node, ([], []))
            steps.append(row.step)
            values.append(value)
    return curves


def plot(folder: RunFolder, out: Path | None = None, metrics: Sequence[str] | None = None) -> Path:
    """Draws one panel per metric, one line per node, over the step.

    Args:
      folder: the run; it may be running.
      out: the file to write; its ending says the format. `None` = `curves.png` in the folder.
      metrics: those to draw, in this order; `None` = all.

    Returns:
      The file.

    Raises:
      UsageError: there is nothing to draw, no such metric, or no such format.
      LaunchError: matplotlib is missing, or the file cannot be written.
    """
    curves = read_curves(folder)
    for metric in metrics or ():
        if metric not in curves:
            raise UsageError(
                f"{metric}: no such metric in {folder.name}{closest(metric, [*curves])}"
            )
    if not curves:
        raise UsageError(
            f"{folder.name} has no metrics: no node called lpml.context().log(...); "
            "nothing was drawn"
        )
    chosen = {metric: curves[metric] for metric in metrics or sorted(curves)}
    path = folder.path / "curves.png" if out is None else Path(out)
    figure = _draw(chosen, folder.name)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise disk_error(path, error) from error
    except ValueError as error:  # an ending that matplotlib does not know
        raise UsageError(f"{path}: {error}") from error
    return path


def _draw(curves: Curves, title: str) -> Any:
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
    except ImportError as error:
        raise LaunchError("drawing needs matplotlib: pip install 'lpml[plot]'") from error
    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (metric, lines), panel in zip(curves.items(), panels, strict=False):
        for node, (steps, values) in sorted(lines.items()):
            few = len(steps) < 30
            panel.plot(steps, values, label=node, lw=1.4, marker="." if few else None)
        panel.set_title(metric, fontsize=10)
        panel.set_xlabel("step", fontsize=8)
        panel.grid(alpha=0.3)
        if len(lines) <= _MAX_LEGEND:
            panel.legend(fontsize=7)
    for panel in panels:  # places of the last row that stay empty
        panel.set_axis_off()
    figure.suptitle(title, fontsize=11)
    return figure
