"""What a message refers to rather than contains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lpml.wire.memory import File


class Carried(ABC):
    """A value in a file of its own, of which the descriptor travels beside a message."""

    __slots__ = ()

    id: bytes
    """16 bytes, in all processes the same."""
    nbytes: int
    """The size of the file; 0 = it has none, and is pickled like anything else."""

    @property
    @abstractmethod
    def file(self) -> File:
        """The file, where there is one."""

    @abstractmethod
    def reference(self) -> tuple[Any, ...]:
        """What is pickled in its place, in the form of `__reduce__`."""
