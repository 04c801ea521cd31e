"""The launchers by name, and the states of what they start.

A new launcher is one file and one line in `LAUNCHERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lpml.errors import UsageError, closest

NodeState = Literal["starting", "running", "restarting", "finished", "failed", "stopped"]
OutcomeState = Literal["finished", "failed", "stopped"]

LAUNCHERS: Mapping[str, str] = {  # name -> module:class, loaded late
    "local_mt": "lpml.launchers.threads:ThreadLauncher",
    "local_mp": "lpml.launchers.processes:ProcessLauncher",
    "test": "lpml.launchers.threads:ThreadLauncher",
}
_IN_PROCESS = ("local_mt", "test")


def check_name(launch: str) -> None:
    """Refuses a launcher that does not exist.

    Raises:
      UsageError: it names those that do.
    """
    if launch not in LAUNCHERS:
        raise UsageError(
            f"launch={launch!r}: no such launcher{closest(launch, tuple(LAUNCHERS))}"
            f" (there are {', '.join(LAUNCHERS)})"
        )


def uses_processes(launch: str) -> bool:
    """Whether nodes live in processes of their own, so that their environment can be set."""
    return launch not in _IN_PROCESS
