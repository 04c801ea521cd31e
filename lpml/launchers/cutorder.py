"""What a node is told to do for a checkpoint: a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True)
class CutOrder:
    """What a node has to do for a cut.

    `hold`: keep the loop at its next safe point; answers `held`, `calling` or `busy`. `shut`: let
    no call in, and wait until none is going on; answers `quiet` or why not. `save`: copy the
    state; answers `copied` or why not. `release`: go on; then, if `path` is given, write the copy
    there and answer `written` or why not.
    """

    what: Literal["hold", "shut", "save", "release"]
    node: str
    number: int
    """Of the cut; an answer carries it."""
    patience: float = 0.0
    """Seconds until the answer."""
    path: str = ""
