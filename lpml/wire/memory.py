"""Shared memory without names: memfd files, made, filled and mapped."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from collections.abc import Iterable
from typing import final

from lpml.errors import LaunchError, ProtocolError

supported = hasattr(os, "memfd_create")
"""Whether shared memory is used; a test may set it to False for the plain copies of macOS."""

_STEP = 8 << 20  # bytes copied before another thread may have its turn
_SEALED = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE
_FIXED = 0x0002 | 0x0004
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


@final
class File:
    """A descriptor of anonymous memory; closed when nobody holds this object."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def create(size: int) -> File:
    """A new file of `size` zero bytes.

    Raises:
      LaunchError: the machine has no memory or no descriptor for it.
    """
    if sys.platform == "linux":
        try:
            file = File(os.memfd_create("lpml", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(file.fd, size)
            return file
        except OSError as error:
            raise LaunchError(
                f"{size} bytes of shared memory cannot be had: {error.strerror}; "
                "free memory or descriptors (ulimit -n)"
            ) from error
    raise LaunchError("there is no memfd on this system")


def write(file: File, pieces: Iterable[tuple[int, memoryview]]) -> None:
    """Writes pieces at their offsets. Cheaper than a mapping for memory that is new."""
    for offset, piece in pieces:
        done = 0
        while done < piece.nbytes:
            done += os.pwrite(file.fd, piece[done : done + (1 << 30)], offset + done)


def fill(memory: mmap.mmap, pieces: Iterable[tuple[int, memoryview]]) -> None:
    """Copies pieces to their offsets of a mapping."""
    for offset, piece in pieces:
        for at in range(0, piece.nbytes, _STEP):
            part = piece[at : at + _STEP]
            memory[offset + at : offset + at + part.nbytes] = part


def seal(file: File, content: bool) -> None:
    """The file keeps its size from now on, and its `content` too."""
    if sys.platform == "linux":
        fcntl.fcntl(file.fd, 1033, _SEALED if content else _FIXED)  # F_ADD_SEALS


def map_shared(file: File, size: int) -> mmap.mmap:
    """The file's own memory, readable and writable."""
    check_size(file, size)
    return mmap.mmap(file.fd, size, mmap.MAP_SHARED | _POPULATE)


def map_private(file: File, size: int) -> mmap.mmap:
    """A writable copy of the file, of which only the pages that are written are copied."""
    check_size(file, size)
    return mmap.mmap(file.fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)


def map_readonly(file: File, size: int) -> mmap.mmap:
    """The file's own memory, to be read."""
    check_size(file, size)
    return mmap.mmap(file.fd, size, mmap.MAP_SHARED, mmap.PROT_READ)


def check_size(file: File, size: int) -> None:
    """A file that is smaller than its sender says would kill who reads it.

    Raises:
      ProtocolError: it is.
    """
    try:
        have = os.fstat(file.fd).st_size
    except OSError as error:
        raise ProtocolError(f"what should be shared memory is none: {error}") from None
    if have < size or size == 0:
        raise ProtocolError(f"a segment of {have} bytes was announced as one of {size}")
