"""Shows what the nodes of a run have printed, now or as it comes."""

from __future__ import annotations

import json
import sys
from typing import final

from lpml.clock import current_clock
from lpml.errors import UsageError, closest
from lpml.record.folder import RunFolder

_INTERVAL = 0.2  # seconds between two looks


def show(folder: RunFolder, node: str, *, follow: bool, lines: int | None, as_json: bool) -> None:
    """Prints logs to stdout.

    Args:
      folder: the run.
      node: a node or a group; "" = all.
      follow: go on until the run has ended.
      lines: of each node, the last so many; `None` = all.
      as_json: one object per line, `{"node": ..., "line": ...}`.

    Raises:
      UsageError: there is no such node.
    """
    tails = [_Tail(folder, name) for name in _chosen(folder, node)]
    width = 0 if len(tails) == 1 else max((len(tail.node) for tail in tails), default=0)
    for tail in tails:
        found = tail.read(last=not follow)
        _print(tail.node, found if lines is None else found[len(found) - lines :], width, as_json)
    while follow and _goes_on(folder):
        current_clock().wait(_INTERVAL)
        for tail in tails:
            _print(tail.node, tail.read(last=False), width, as_json)
    for tail in tails:
        _print(tail.node, tail.read(last=True), width, as_json)


def _chosen(folder: RunFolder, node: str) -> list[str]:
    names = folder.nodes
    chosen = [name for name in names if not node or name == node or name.startswith(f"{node}/")]
    if not chosen and node:
        raise UsageError(f"{node}: no such node in {folder.name}{closest(node, names)}")
    return chosen


def _goes_on(folder: RunFolder) -> bool:
    from lpml.launchers import rendezvous

    return any(info.folder == str(folder.path) for info in rendezvous.runs())


@final
class _Tail:
    def __init__(self, folder: RunFolder, node: str) -> None:
        self.node = node
        self._path = folder.log_file(node)
        self._at = 0
        self._rest = b""

    def read(self, *, last: bool) -> list[str]:
        """Lines since the last time; the unfinished one only if it is the `last` time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            data = b""
        self._at += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if last and self._rest:
            whole.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace") for line in whole]


def _print(node: str, lines: list[str], width: int, as_json: bool) -> None:
    for line in lines:
        if as_json:
            print(json.dumps({"node": node, "line": line}))
        else:
            print(f"{node.ljust(width)} | {line}" if width else line)
    if lines:
        sys.stdout.flush()
