"""How tests launch their programs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import lpml
from lpml.launchers import Run

Launch: TypeAlias = Callable[..., Run]
"""Of a program, and of what is to be different from the options of `launching`."""


def launching(launcher: str, directory: Path) -> Launch:
    """Launches programs on this launcher, with run folders that are kept for the test."""
    options: dict[str, Any] = {"directory": directory, "terminal": False, "stop_timeout": 30.0}
    return lambda program, **changes: lpml.launch(program, launcher, **{**options, **changes})


def fail(node: Any) -> None:
    """Calls the method of a node by which it is told to fail: it may be gone before it answers."""
    with contextlib.suppress(lpml.NodeUnavailable):
        node.fail()
