"""What nodes print: into their log files, and from there to the terminal with their names."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, final

from lpml.clock import Scope, find_scope

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # ANSI foregrounds
_CHUNK = 1 << 20
_MOST = 8 << 20  # of a log that runs ahead of the terminal; the rest stays in the file


@final
class Echo:
    """Shows the logs of a run on the terminal, whole lines only, each behind its node's name.

    Args:
      logs: `{node: file}`.
      stream: where to; `None` = what `sys.stdout` is when a line is shown.
    """

    def __init__(self, logs: Mapping[str, Path], stream: TextIO | None = None) -> None:
        self._width = max((len(node) for node in logs), default=0)
        self._tails = [
            _Tail(node.ljust(self._width), path, _COLOURS[i % len(_COLOURS)])
            for i, (node, path) in enumerate(logs.items())
        ]
        self._stream = stream

    def add(self, node: str, path: Path) -> None:
        """One more log."""
        if all(tail.path != path for tail in self._tails):
            colour = _COLOURS[len(self._tails) % len(_COLOURS)]
            self._tails.append(_Tail(node.ljust(self._width), path, colour))

    def poll(self) -> None:
        """Shows what was added since the last time."""
        self._show([tail.lines(last=False) for tail in self._tails])

    def finish(self) -> None:
        """Shows the rest, unfinished lines too."""
        self._show([tail.lines(last=True) for tail in self._tails])

    def _show(self, found: list[list[str]]) -> None:
        stream = self._stream or sys.stdout
        if stream is None:
            return
        try:
            colour = stream.isatty()
            text = "".join(
                (f"\033[{tail.colour}m{tail.label} |\033[0m " if colour else f"{tail.label} | ")
                + line
                + "\n"
                for tail, lines in zip(self._tails, found, strict=True)
                for line in lines
            )
            if text:
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):  # the terminal went away; the logs are complete
            pass


@final
class _Tail:
    def __init__(self, label: str, path: Path, colour: int) -> None:
        self.label = label
        self.colour = colour
        self.path = path
        try:
            self._at = os.stat(path).st_size  # of a run that is resumed, only what is new
        except OSError:
            self._at = 0
        self._rest = b""

    def lines(self, last: bool) -> list[str]:
        try:
            size = os.stat(self.path).st_size
            if size == self._at and not last:
                return []
            found = self._read(size)
        except OSError:
            return []
        if last and self._rest:
            found.append(self._rest)
            self._rest = b""
        return [line.rpartition(b"\r")[2].decode("utf-8", "replace") for line in found]

    def _read(self, size: int) -> list[bytes]:
        found: list[bytes] = []
        if size - self._at > _MOST:
            found.append(b"[... %d MB more in %s]" % ((size - self._at) >> 20, bytes(self.path)))
            self._at = size - _MOST
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._at)
            while part := file.read(_CHUNK):
                self._at += len(part)
                *whole, self._rest = (self._rest + part).split(b"\n")
                found += [line.removesuffix(b"\r") for line in whole]
                if len(self._rest) > _CHUNK:
                    found.append(self._rest)
                    self._rest = b""
        return found


# Nodes that share a process: one stream for all, sorted by whose code is printing.

_lock = threading.Lock()
_files: dict[Scope, TextIO] = {}  # {node: its open log}
_routers: list[_Router] = []  # while `_files` is not empty: stdout and stderr


@final
class _Router(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr; a node's text goes to its log, other text through."""

    def __init__(self, name: str, original: Any) -> None:
        self.name = name
        self.original = original

    def _target(self) -> Any:
        scope = find_scope()
        file = _files.get(scope) if scope is not None else None
        return self.original if file is None else file

    def write(self, text: str) -> int:
        target = self._target()
        return 0 if target is None else int(target.write(text) or 0)

    def flush(self) -> None:
        target = self._target()
        if target is not None and not getattr(target, "closed", False):  # as a collected one may be
            target.flush()

    def isatty(self) -> bool:
        target = self._target()
        return bool(target is not None and target.isatty())

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.original.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a plain attribute
        return str(getattr(self.original, "encoding", None) or "utf-8")

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self.original, "errors", None)

    def __getattr__(self, name: str) -> Any:  # buffer, buffer and what else a stream may have
        return getattr(self.original, name)


def route(scope: Scope, path: Path) -> None:
    """From now on what code of this node prints in this process goes to the file `path`."""
    if scope in _files:
        return
    file = path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
    with _lock:
        if not _files:
            for name in ("stdout", "stderr"):
                router = _Router(name, getattr(sys, name))
                _routers.append(router)
                setattr(sys, name, router)
        _files[scope] = file


def unroute(scope: Scope) -> None:
    """Ends `route`; the streams are put back when no node is left."""
    with _lock:
        file = _files.pop(scope, None)
        if file is not None:
            file.close()
        if _files:
            return
        for router in _routers:
            if getattr(sys, router.name) is router:  # else somebody put theirs over it
                setattr(sys, router.name, router.original)
        _routers.clear()
