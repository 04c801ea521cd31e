"""Tables and lines for people: a run while it goes on, a plan, a list. Text in, text out.

What is shown is made from `RunStatus` and `Plan` alone, so it is the same for a run of this
process, of another process, and of the past. The one file of the core that imports rich.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from lpml.cli.words import count, duration, number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from lpml.launchers import NodeStatus, RunStatus

STATE_COLOURS: Mapping[str, str] = {
    "starting": "yellow",
    "running": "green",
    "restarting": "yellow",
    "stopping": "yellow",
    "finished": "cyan",
    "stopped": "dim",
    "failed": "bold red",
}
_BAR = 16  # characters
_SPAN = 8.0  # seconds over which speeds are averaged


@final
class Speeds:
    """Calls per second, and when work will be done, from statuses seen one after another."""

    def __init__(self) -> None:
        self._calls: dict[str, list[tuple[float, int]]] = {}  # {node: [(time, calls)]}
        self._work: dict[str, tuple[float, float]] = {}  # {node: (time, done) when first seen}
        self._now = 0.0

    def see(self, status: RunStatus) -> None:
        """Takes note of a status; its own `seconds` is the time."""
        self._now = status.seconds
        for node in status.nodes:
            seen = self._calls.setdefault(node.name, [(0.0, 0)])
            if seen and node.calls < seen[-1][1]:
                seen.clear()  # the node started again
            seen.append((self._now, node.calls))
            while len(seen) > 2 and seen[1][0] < self._now - _SPAN:
                del seen[0]
            if node.progress is not None:
                self._work.setdefault(node.name, (self._now, node.progress[0]))

    def calls(self, node: str) -> float | None:
        """Calls per second of late, or `None` where too little was seen."""
        seen = self._calls.get(node, [])
        if len(seen) < 2 or seen[-1][0] <= seen[0][0]:
            return None
        return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])

    def eta(self, node: NodeStatus) -> float | None:
        """Seconds until the node's work is done at the speed so far, or `None`."""
        if node.progress is None or node.progress[1] is None or node.name not in self._work:
            return None
        done, total = node.progress[0], node.progress[1]
        start, at_start = self._work[node.name]
        if done >= total:
            return 0.0
        if done <= at_start or self._now <= start:
            return None
        return (total - done) * (self._now - start) / (done - at_start)


@dataclass(frozen=True)
class Row:
    """One line of the table: a node, or a group of which there are too many."""

    name: str
    state: str
    calls: float | None
    metrics: Mapping[str, float]
    progress: tuple[float, float | None] | None
    eta: float | None
    detail: str = ""
    restarts: int = 0


def rows(status: RunStatus, speeds: Speeds, limit: int | None = None) -> list[Row]:
    """One row per node; where that is more than `limit`, large groups become one row each."""
    groups: dict[str, list[NodeStatus]] = {}
    for node in status.nodes:
        groups.setdefault(node.group, []).append(node)
    folded: set[str] = set()
    if limit is not None:
        for group in sorted(groups, key=lambda group: -len(groups[group])):
            shown = sum(1 if g in folded else len(groups[g]) for g in groups)
            if shown <= limit or len(groups[group]) < 2:
                break
            folded.add(group)
    found = []
    for group, nodes in groups.items():
        if group in folded:
            found.append(_fold(group, nodes, speeds))
        else:
            found += [_row(node, speeds) for node in nodes]
    return found


def _row(node: NodeStatus, speeds: Speeds) -> Row:
    runs = node.state == "running"  # else speed and time left are of no use
    return Row(
        name=node.name,
        state=node.state,
        calls=speeds.calls(node.name) if runs else None,
        metrics=node.metrics,
        progress=node.progress,
        eta=speeds.eta(node) if runs else None,
        detail=node.detail,
        restarts=node.restarts,
    )


def _fold(group: str, nodes: Sequence[NodeStatus], speeds: Speeds) -> Row:
    states = Counter(node.state for node in nodes)
    running = [_row(node, speeds) for node in nodes if node.state == "running"]
    rates = [row.calls for row in running if row.calls is not None]
    etas = [row.eta for row in running if row.eta is not None]
    works = [node.progress for node in nodes if node.progress is not None]
    totals = [total for _, total in works if total is not None]
    known = len(totals) == len(works)
    names = dict.fromkeys(name for node in nodes for name in node.metrics)
    return Row(
        name=f"{group} × {len(nodes)}",
        state=" ".join(f"{many} {state}" for state, many in states.most_common())
        if len(states) > 1
        else nodes[0].state,
        calls=sum(rates) if rates else None,
        metrics={name: _mean(name, nodes) for name in names},
        progress=(sum(d for d, _ in works), sum(totals) if known else None) if works else None,
        eta=max(etas, default=None),
        detail=next((node.detail for node in nodes if node.detail), ""),
        restarts=sum(node.restarts for node in nodes),
    )


def _mean(name: str, nodes: Iterable[NodeStatus]) -> float:
    values = [node.metrics[name] for node in nodes if name in node.metrics]
    return sum(values) / len(values)


# Words.


def metrics_text(metrics: Mapping[str, float], limit: int = 6) -> str:
    """`loss 0.12  accuracy 0.97`, the first `limit` of them."""
    shown = [f"{name} {number(value)}" for name, value in list(metrics.items())[:limit]]
    if len(metrics) > limit:
        shown.append(f"(+{len(metrics) - limit})")
    return "  ".join(shown)


def progress_text(
    progress: tuple[float, float | None] | None, eta: float | None, *, bar: bool = False
) -> str:
    """`45 %, 10.0 s left`, with a bar before it if asked for; a plain count without a total."""
    if progress is None:
        return ""
    done, total = progress
    if not total:
        return number(done)
    share = min(1.0, max(0.0, done / total))
    filled = round(share * _BAR)
    text = f"{share:4.0%}" if bar else f"{share:.0%}"
    if bar:
        text = "━" * filled + "╌" * (_BAR - filled) + text
    if eta is not None and share < 1:
        text += f", {duration(eta)} left"
    return text


def line(status: RunStatus, speeds: Speeds) -> str:
    """A run on one line, for logs: states, calls, progress and metrics."""
    states = Counter(node.state for node in status.nodes)
    parts = [", ".join(f"{many} {state}" for state, many in states.most_common())]
    restarts = sum(node.restarts for node in status.nodes)
    if restarts:
        parts.append(count(restarts, "restart"))
    rates = [rate for node in status.nodes if (rate := speeds.calls(node.name)) is not None]
    if rates:
        parts.append(f"{number(round(sum(rates), 1))} calls/s")
    for row in rows(status, speeds, limit=8):
        facts = [progress_text(row.progress, row.eta), metrics_text(row.metrics, 4)]
        if any(facts):
            parts.append(f"{row.name}: " + "  ".join(filter(None, facts)))
    return f"lpml: {status.program} {duration(status.seconds)}: " + "; ".join(parts)


def ending(status: RunStatus) -> str:
    """How a run ended, on one line, and where to look; a temporary folder is gone by then."""
    reason = f" ({status.reason})" if status.reason else ""
    path = Path(status.folder)
    folder = f"; run folder {path}" if path.exists() else ""
    if status.state != "finished" and any(path.glob("checkpoints/[0-9]*")):
        folder += f"; `lpml resume {path.name}` goes on with it"
    return f"lpml: {status.program} {status.state} after {duration(status.seconds)}{reason}{folder}"


# rich.


def console(*, stderr: bool = False) -> Console:
    """A console for this terminal, or one that cuts nothing where there is none."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=500)


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], title: str = "") -> Table:
    """A plain table; cells may carry rich markup."""
    from rich.table import Table

    made = Table(
        box=None, title=title or None, title_justify="left", pad_edge=False, header_style="bold"
    )
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    for cells in lines:
        made.add_row(*cells)
    return made


def coloured(state: str) -> str:
    """A state in its colour, as rich markup."""
    colour = STATE_COLOURS.get(state.split()[-1], "")
    return f"[{colour}]{state}[/]" if colour else state


def run_view(status: RunStatus, speeds: Speeds, height: int | None = None) -> RenderableType:
    """A run as a table of its nodes under one line on the whole.

    Args:
      status: the run.
      speeds: has seen this status.
      height: lines that there are; large groups are folded to fit.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    limit = None if height is None else max(4, height - 5)
    shown = rows(status, speeds, limit)
    hidden = 0 if limit is None else max(0, len(shown) - limit)
    body = table(
        ("node", "state", ">calls/s", "progress", "metrics"),
        [
            (
                escape(row.name),
                coloured(row.state) + (f", {count(row.restarts, 'restart')}" * (row.restarts > 0)),
                "" if row.calls is None else number(round(row.calls, 1)),
                progress_text(row.progress, row.eta, bar=True),
                escape(metrics_text(row.metrics) or row.detail),
            )
            for row in shown[: len(shown) - hidden]
        ],
    )
    head = Text.from_markup(
        f"[bold]{escape(status.program)}[/] on {status.launch}, {coloured(status.state)} "
        f"{duration(status.seconds)}  [dim]{escape(status.folder)}[/]"
    )
    head.no_wrap = True
    head.overflow = "ellipsis"
    parts: list[RenderableType] = [head, body]
    if hidden:
        parts.append(Text(f"and {hidden} rows more", style="dim"))
    return Group(*parts)
