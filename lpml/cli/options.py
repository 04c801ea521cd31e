"""Arguments that several verbs have, and what the shell may complete for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Completion; each is called by the shell, so it must be quick and may never raise.


def complete_programs(incomplete: str) -> list[str]:
    from lpml.cli.programs import prebuilt

    place = Path(incomplete)
    folder = place if incomplete.endswith("/") else place.parent
    prefix = "" if str(folder) == "." and not incomplete.startswith("./") else f"{folder}/"
    files = [f"{prefix}{path.name}" for path in folder.glob("*.py")] if folder.is_dir() else []
    return [name for name in [*prebuilt(), *sorted(files)] if name.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    from lpml.record.folder import RunFolder

    names = ["latest", *(folder.name for folder in reversed(RunFolder.all()))]
    return [name for name in names if name.startswith(incomplete)]


def complete_live(incomplete: str) -> list[str]:
    from lpml.launchers import rendezvous

    return [info.run for info in rendezvous.runs() if info.run.startswith(incomplete)]


def complete_nodes(incomplete: str) -> list[str]:
    from lpml.launchers import rendezvous
    from lpml.record.folder import RunFolder

    names = [node for info in rendezvous.runs() for node in RunFolder(info.folder).nodes]
    return sorted({name for name in names if name.startswith(incomplete)})


def complete_launchers(incomplete: str) -> list[str]:
    from lpml.launchers.names import LAUNCHERS

    return [name for name in LAUNCHERS if name.startswith(incomplete)]


# Arguments that several verbs have.

Target = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM",
        help="A file (program.py), a function of it (program.py:name), module:name, or a name "
        "that `lpml list` shows.",
        autocompletion=complete_programs,
        show_default=False,
    ),
]
Launch = Annotated[
    str,
    typer.Option(
        "--launch",
        metavar="LAUNCHER",
        help="Where it runs: local_mp processes, local_mt threads, ray actors of a Ray cluster, "
        "test threads with a time limit.",
        autocompletion=complete_launchers,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="The Ray cluster for --launch=ray: auto or HOST:PORT; else RAY_ADDRESS, else a Ray "
        "of this run on this machine.",
        show_default=False,
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        "--runs-dir",
        metavar="DIR",
        help="The folder that holds run folders; else LPML_RUNS, else ./runs.",
        show_default=False,
    ),
]
CheckpointEvery = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Save the state of all stateful nodes so often, and when the run stops.",
        show_default=False,
    ),
]
StopTimeout = Annotated[
    float, typer.Option(help="Seconds that a stop may take before what still runs is killed.")
]
StartTimeout = Annotated[
    float, typer.Option(help="Seconds that the constructor of a node may take.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Lines now and then instead of a live table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Help = Annotated[bool, typer.Option("--help", "-h", help="Show this message and exit.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write here.", show_default=False),
]
LiveRun = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        help="A run that `lpml ps` shows, or how its name begins; needed if there are several.",
        autocompletion=complete_live,
        show_default=False,
    ),
]
AnyRun = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        help="A run folder: its path, its name, the name of its program, or latest.",
        autocompletion=complete_runs,
    ),
]
