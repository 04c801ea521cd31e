"""What `lpml run` keeps of its command line, and how a program is made again from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpml.cli.running import Options
from lpml.errors import UsageError
from lpml.record.folder import RunFolder

if TYPE_CHECKING:
    from lpml.graph import Program


def command(target: str, flags: Sequence[str], options: Options) -> dict[str, Any]:
    """What `prepare` needs, as plain data."""
    return {
        "target": target,
        "flags": list(flags),
        "cwd": os.getcwd(),
        "launch": options.launch,
        "address": options.address,
        "checkpoint_every": options.checkpoint_every,
    }


def prepare(name: str, directory: Path | None) -> tuple[Program, Options]:
    """The program of a run, made again in the folder where it was made, and how it was run.

    Raises:
      UsageError: there is no such run, or it was not started by `lpml run`.
    """
    from lpml.cli import factories
    from lpml.cli.arguments import build

    folder = RunFolder.find(name, directory)
    kept = folder.read_json(folder.program_json).get("command") or {}
    if not isinstance(kept, dict) or "target" not in kept:
        raise UsageError(
            f"{folder.name}: it was not started by `lpml run`, so how its program is made is not "
            f"known here; resume it where it is: lpml.launch(program, resume={str(folder.path)!r})"
        )
    try:
        os.chdir(kept["cwd"])
    except OSError as error:
        raise UsageError(
            f"{folder.name}: it was started in {kept['cwd']}, which is no more ({error.strerror})"
        ) from error
    program = build(factories.find(kept["target"]), kept["flags"])
    options = Options(
        launch=kept["launch"],
        address=kept.get("address"),
        checkpoint_every=kept["checkpoint_every"],
        resume=folder.path,
        command=kept,
    )
    return program, options
