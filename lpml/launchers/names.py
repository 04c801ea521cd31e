"""The launchers by name, and the states of what they start.

A new launcher is one file and one line in `LAUNCHERS`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Literal

from lpml.errors import UsageError, closest

NodeState = Literal["starting", "running", "restarting", "finished", "failed", "stopped"]
OutcomeState = Literal["finished", "failed", "stopped"]

LAUNCHERS: Mapping[str, str] = {  # name -> module:class, loaded late
    "local_mt": "lpml.launchers.threads:ThreadLauncher",
    "local_mp": "lpml.launchers.processes:ProcessLauncher",
    "ray": "lpml.launchers.ray_engine:RayLauncher",
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


def cluster_address(launch: str, address: str | None) -> str | None:
    """The cluster that a launcher attaches to; `None` = this machine alone.

    Raises:
      UsageError: the launcher knows no clusters, or the address is one of Ray Client.
    """
    if launch != "ray":
        if address:
            raise UsageError(
                f"address={address!r} is of a Ray cluster, and launch={launch!r} of this machine; "
                "leave it out, or launch on 'ray'"
            )
        return None
    found = address or os.environ.get("RAY_ADDRESS") or None
    if found is not None and found.startswith("ray://"):
        raise UsageError(
            f"address={found!r} is one of Ray Client, through which nodes cannot be called; run "
            "lpml on a machine of the cluster with address='auto', or by `ray job submit`"
        )
    return found


def version() -> str:
    """The release of lpml that runs here."""
    return str(getattr(sys.modules.get("lpml"), "__version__", ""))
