"""The journal of a node: what it has acknowledged since a cut, record after record.

::

    checkpoints/journal/server-0.7     what server/0 has journaled since cut 7 was saved

The number is that of the cut; 0 is from the constructor on. A cut that was saved and never
finished has begun a journal, too: to go on from cut C, redo all from number C on, in order.

A record is `length: uint64, CRC-32 of the length, CRC-32 of the content: uint32`, little endian,
and then its content. A process that is killed leaves the beginning of one at most, which nobody
was told of. Nothing is synced to the disk: records outlive their process, not their machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias, final

from lpml.errors import Error, LaunchError, NodeUnavailable, UsageError
from lpml.record.folder import disk_error

LIMIT = 1 << 30
"""Bytes after which a journal asks for a checkpoint, and again after as many more."""
_LENGTH = struct.Struct("<Q")
_SUMS = struct.Struct("<II")
_HEAD = _LENGTH.size + _SUMS.size
_MOST_PARTS = 1000  # of one writev

Buffer: TypeAlias = bytes | bytearray | memoryview
Record: TypeAlias = Buffer | Sequence[Buffer]


@final
class Journal:
    """The journal of one node, from one start of it to its end. Thread-safe.

    Args:
      folder: of the journals of the run.
      stem: of the files of the node.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self._lock = threading.Lock()
        self._number = 0
        self._file = -1
        self._begun = False
        self._size = 0
        self._wanted: Callable[[], object] = int
        self.written = 0
        """Records since the start."""

    def begin(
        self,
        since: int,
        redo: Callable[[bytes], object],
        want_cut: Callable[[], object] = int,
    ) -> int:
        """Gives `redo` all records since a cut, in their order, and goes on behind the last.

        Args:
          since: number of the cut; 0 = there is none.
          redo: called with each record.
          want_cut: called when so much has been journaled that there should be another cut.

        Returns:
          How many records there were.

        Raises:
          LaunchError: a journal is damaged, or the machine refuses.
        """
        numbers = [number for number in _numbers(self._folder, self._stem) if number >= since]
        if numbers and numbers[0] != since:
            raise _damaged(self._path(since), "it is missing, and there are later ones")
        count, end = 0, 0
        for number in numbers:
            count_here, end, torn = _read(self._path(number), redo)
            if torn and number != numbers[-1]:
                raise _damaged(self._path(number), "its last record is not whole")
            count += count_here
        self._wanted, self._begun = want_cut, True
        if numbers:
            self._open(numbers[-1], end, 0)
        else:
            self._open(since, 0, os.O_EXCL)
        return count

    def append(self, record: Record) -> None:
        """Adds a record; it is there when this returns, and not at all if this raises.

        Raises:
          LaunchError: the machine refuses, for lack of room say.
          NodeUnavailable: the node has ended.
          UsageError: it has not begun.
        """
        parts = [record] if isinstance(record, Buffer) else list(record)
        if len(parts) > _MOST_PARTS:
            parts = [b"".join(parts)]
        content, sizes = 0, 0
        for part in parts:
            content = zlib.crc32(part, content)
            sizes += memoryview(part).nbytes
        length = _LENGTH.pack(sizes)
        parts = [length + _SUMS.pack(zlib.crc32(length), content), *parts]
        with self._lock:
            self._append(parts, _HEAD + sizes)

    def turn(self, number: int, written: int) -> bool:
        """Begins anew, with a cut whose state has all records so far.

        Args:
          number: of the cut.
          written: `written` as it was before the state was taken.

        Returns:
          Whether that state is the one to go on from: nothing was journaled since.

        Raises:
          LaunchError: the machine refuses; the journal goes on as it was.
        """
        with self._lock:
            if self.written != written:
                return False
            before = self._file
            self._open(number, 0, os.O_EXCL)
            if before >= 0:
                os.close(before)
            return True

    def close(self) -> None:
        """The node has ended: nothing is added any more."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._stem}.{number}"

    def _open(self, number: int, size: int, flags: int) -> None:
        path = self._path(number)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, 0o644)
            try:
                os.ftruncate(file, size)  # without what was cut off
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise disk_error(path, error) from error
        self._number, self._file, self._size = number, file, size

    def _append(self, parts: list[Buffer], size: int) -> None:
        if self._file < 0:
            raise self._refusal()
        try:
            done = os.writev(self._file, parts)
            if done < size:
                left = memoryview(b"".join(parts))[done:]
                while left:
                    left = left[os.write(self._file, left) :]
        except BaseException as error:
            self._take_back()
            if isinstance(error, OSError):
                raise disk_error(self._path(self._number), error) from error
            raise
        before, self._size = self._size, self._size + size
        self.written += 1
        if before // LIMIT < self._size // LIMIT:
            self._wanted()

    def _refusal(self) -> Error:
        if not self._begun:
            return UsageError(
                "journal() was called by a constructor, or by redo(); what is there then was, or "
                "will be, made again without it: call it for changes that callers ask for"
            )
        return NodeUnavailable(f"the journal {self._path(self._number)} is closed: its node ended")

    def _take_back(self) -> None:
        """What was written of a record that was not whole."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            os.close(self._file)  # whoever comes next cuts it off
            self._file = -1


def _read(path: Path, redo: Callable[[bytes], object]) -> tuple[int, int, bool]:
    """Redoes a file: how many records, where the last one ends, and whether more followed."""
    count, end = 0, 0
    with path.open("rb", buffering=1 << 20) as file:
        while head := file.read(_HEAD):
            record = _content(path, file, head, end)
            if record is None:
                return count, end, True
            redo(record)
            count, end = count + 1, end + _HEAD + len(record)
    return count, end, False


def _content(path: Path, file: BinaryIO, head: bytes, at: int) -> bytes | None:
    """Of a record; `None` if it is not whole."""
    if len(head) < _HEAD:
        return None
    length = head[: _LENGTH.size]
    of_length, of_content = _SUMS.unpack_from(head, _LENGTH.size)
    if zlib.crc32(length) != of_length:
        raise _damaged(path, f"the record at byte {at} has a wrong checksum")
    (size,) = _LENGTH.unpack(length)
    content = file.read(size)
    if len(content) < size:
        return None
    if zlib.crc32(content) != of_content:
        raise _damaged(path, f"the record at byte {at} has a wrong checksum")
    return content


def _damaged(path: Path, what: str) -> LaunchError:
    return LaunchError(
        f"the journal {path} is damaged: {what}; what was acknowledged since the last checkpoint "
        f"cannot be redone; remove {path.parent}, and `lpml resume` goes on from that checkpoint"
    )


def _numbers(folder: Path, stem: str) -> list[int]:
    return sorted(number for name, number in _files(folder) if name == stem)


def _files(folder: Path) -> list[tuple[str, int]]:
    """The stem and the number of each journal."""
    try:
        names = [path.name.rpartition(".") for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [(stem, int(number)) for stem, _, number in names if number.isdigit()]


def begun(folder: Path, number: int) -> set[str]:
    """The stems of the journals that began with a cut."""
    return {stem for stem, begun in _files(folder) if begun == number}


def highest(folder: Path) -> int:
    """The highest number of a journal; 0 where there is none."""
    return max((number for _, number in _files(folder)), default=0)


def prune(folder: Path, since: int) -> None:
    """Removes what nobody needs who goes on from cut `since` or a later one."""
    for stem, number in _files(folder):
        if number < since:
            with contextlib.suppress(OSError):  # it only costs room
                (folder / f"{stem}.{number}").unlink()


def drop(folder: Path) -> None:
    """Forgets all: the run is set back to a cut, and what came after it has never been.

    Raises:
      LaunchError: the machine refuses.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LaunchError(
            f"the journals in {folder}, of a time that is undone, cannot be removed: {error}; "
            "remove them, and resume the run"
        ) from error
