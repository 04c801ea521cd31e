"""The verbs on runs: ps, stop, stack, logs, plot. Each is thin: find, ask, show."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lpml.cli.guard import verb
from lpml.cli.options import AnyRun, Directory, Json, LiveRun, Output, complete_live, complete_nodes


@verb
def ps(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Ended runs of the folder too.")
    ] = False,
    directory: Directory = None,
    json_: Json = False,
) -> None:
    """Show the runs that go on on this machine, whoever started them in your name."""
    from lpml.cli import runs, tables

    statuses = runs.live()
    if everything:
        known = {status.folder for status in statuses}
        statuses = [*(s for s in runs.ended(directory) if s.folder not in known), *statuses]
    if json_:
        print(json.dumps([status.to_json() for status in statuses], default=str))
        return
    tables.print_runs(statuses)


@verb
def stop(
    run: LiveRun = "",
    everything: Annotated[bool, typer.Option("--all", "-a", help="Stop every run.")] = False,
    reason: Annotated[str, typer.Option(help="Shown to people.")] = "lpml stop",
    timeout: Annotated[float, typer.Option(help="Seconds to wait here until it has ended.")] = 30.0,
    json_: Json = False,
) -> int:
    """Stop a run, as a success, and wait until it has ended."""
    from lpml.cli import runs

    chosen = runs.infos() if everything else [runs.find(run)]
    ended = {info.run: runs.stop(info, reason, timeout) for info in chosen}
    if json_:
        print(json.dumps([{"run": name, "ended": over} for name, over in ended.items()]))
    else:
        for name, over in ended.items():
            print(f"{name}: {'ended' if over else f'still stopping after {timeout:g} s'}")
    return 0 if all(ended.values()) else 1


@verb
def stack(
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE",
            help="Such as worker/0.",
            autocompletion=complete_nodes,
            show_default=False,
        ),
    ],
    run: Annotated[
        str,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Needed if several runs go on.",
            autocompletion=complete_live,
            show_default=False,
        ),
    ] = "",
    json_: Json = False,
) -> None:
    """Show the Python stacks of every thread of a running node."""
    from lpml.cli import runs

    text = runs.stack(runs.find(run), node)
    print(json.dumps({"node": node, "stack": text}) if json_ else text.rstrip())


@verb
def scale(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run that `lpml ps` shows, or how its name begins.",
            autocompletion=complete_live,
            show_default=False,
        ),
    ],
    group: Annotated[
        str, typer.Argument(metavar="GROUP", help="Such as worker.", show_default=False)
    ],
    count: Annotated[
        int, typer.Argument(metavar="N", help="Nodes it is to have.", show_default=False)
    ],
    json_: Json = False,
) -> None:
    """Give a group of a running program more or fewer nodes."""
    from lpml.cli import runs

    info = runs.find(run)
    names = runs.scale(info, group, count)
    if json_:
        print(json.dumps({"run": info.run, "group": group, "nodes": names}))
    else:
        print(f"{info.run}: {group} has {len(names)} nodes now")


@verb
def logs(
    run: AnyRun = "latest",
    node: Annotated[
        str,
        typer.Argument(
            metavar="[NODE]",
            help="Such as worker/0, or a group, such as worker; all if not given.",
            show_default=False,
        ),
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", min=0, help="Only the last of each node.", show_default=False
        ),
    ] = None,
    directory: Directory = None,
    json_: Json = False,
) -> None:
    """Show what the nodes of a run have printed."""
    from lpml.cli import logs as log_files
    from lpml.record.folder import RunFolder

    folder = RunFolder.find(run, directory)
    log_files.show(folder, node, follow=follow, lines=lines, as_json=json_)


@verb
def plot(
    run: AnyRun = "latest",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Draw this one; may be repeated.", show_default=False),
    ] = None,
    output: Output = None,
    directory: Directory = None,
    json_: Json = False,
) -> None:
    """Draw the curves of a run as a PNG (or what the ending of --output says)."""
    from lpml.record.folder import RunFolder
    from lpml.record.plot import plot as draw_curves

    path = draw_curves(RunFolder.find(run, directory), output, metric or None)
    print(json.dumps({"file": str(path)}) if json_ else path)
