"""The verbs on programs: run, check, plan, graph, list. Each is thin: find, ask, show."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpml.cli.guard import verb
from lpml.cli.options import (
    Address,
    AnyRun,
    CheckpointEvery,
    Directory,
    Help,
    Json,
    Launch,
    Output,
    Plain,
    Quiet,
    StartTimeout,
    StopTimeout,
    Target,
)
from lpml.cli.words import count
from lpml.errors import GraphError, UsageError

if TYPE_CHECKING:
    from lpml.cli.factories import Factory
    from lpml.graph import Program


@verb
def run(
    context: typer.Context,
    target: Target = "",
    launch: Launch = "local_mp",
    address: Address = None,
    directory: Directory = None,
    checkpoint_every: CheckpointEvery = None,
    stop_timeout: StopTimeout = 10.0,
    start_timeout: StartTimeout = 120.0,
    plain: Plain = False,
    quiet: Quiet = False,
    json_: Json = False,
    help_: Help = False,
) -> int:
    """Run a program to its end. Ctrl-C stops it, a second Ctrl-C kills it."""
    from lpml.cli import resuming, running

    program = _program(context, target, help_)
    options = running.Options(
        launch=launch,
        address=address,
        directory=directory,
        stop_timeout=stop_timeout,
        start_timeout=start_timeout,
        live=not plain,
        quiet=quiet,
        json=json_,
        checkpoint_every=checkpoint_every,
    )
    command = resuming.command(target, context.args, options)
    return running.run(program, dataclasses.replace(options, command=command))


@verb
def resume(
    run: AnyRun = "latest",
    launch: Annotated[
        str, typer.Option(metavar="LAUNCHER", help="Another launcher.", show_default=False)
    ] = "",
    address: Address = None,
    directory: Directory = None,
    checkpoint_every: CheckpointEvery = None,
    stop_timeout: StopTimeout = 10.0,
    start_timeout: StartTimeout = 120.0,
    plain: Plain = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> int:
    """Go on with a run that has ended, from its last checkpoint, with the same arguments."""
    from lpml.cli import resuming, running

    program, options = resuming.prepare(run, directory)
    options = dataclasses.replace(
        options,
        launch=launch or options.launch,
        address=address or (options.address if launch in ("", options.launch) else None),
        checkpoint_every=checkpoint_every or options.checkpoint_every,
        stop_timeout=stop_timeout,
        start_timeout=start_timeout,
        live=not plain,
        quiet=quiet,
        json=json_,
    )
    return running.run(program, options)


@verb
def check(
    context: typer.Context,
    target: Target = "",
    launch: Launch = "local_mp",
    address: Address = None,
    json_: Json = False,
    help_: Help = False,
) -> int:
    """Report every fault of a program at once. Starts nothing."""
    from lpml.graph import examine
    from lpml.launchers import compile as compile_program

    program = _program(context, target, help_)
    faults: tuple[str, ...] = ()
    try:
        compile_program(program, launch, address=address)
    except GraphError as error:
        faults = error.faults
    found = examine(program)
    if json_:
        result = {
            "program": program.name,
            "launch": launch,
            "nodes": [node.name for node in program.nodes],
            "edges": len(found.edges),
            "faults": list(faults),
            "warnings": list(found.warnings),
        }
        print(json.dumps(result))
        return 2 if faults else 0
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    sizes = [(len(program.nodes), "node"), (len(found.edges), "edge"), (len(faults), "fault")]
    print(f"{program.name}: {', '.join(count(*size) for size in sizes)}")
    return 2 if faults else 0


@verb
def plan(
    context: typer.Context,
    target: Target = "",
    launch: Launch = "local_mp",
    address: Address = None,
    json_: Json = False,
    help_: Help = False,
) -> None:
    """Print what would be started, where and with which environment. Starts nothing."""
    from lpml.launchers import compile as compile_program

    made = compile_program(_program(context, target, help_), launch, address=address)
    if json_:
        print(json.dumps(made.to_json(), default=str))
        return
    from lpml.cli import tables

    tables.print_plan(made)


@verb
def graph(
    context: typer.Context,
    target: Target = "",
    format_: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="mermaid, dot or svg.")
    ] = "",
    output: Output = None,
    json_: Json = False,
    help_: Help = False,
) -> None:
    """Draw a program as Mermaid, DOT or SVG (the ending of --output says which)."""
    program = _program(context, target, help_)
    if json_:
        print(json.dumps(_graph_json(program), default=str))
        return
    text = _drawing(program, format_ or (output.suffix.lstrip(".") if output else "mermaid"))
    if output is None:
        print(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}; give another") from error
    print(output)


def _drawing(program: Program, name: str) -> str:
    from lpml.errors import closest
    from lpml.graph import draw

    formats = {"mermaid": draw.mermaid, "mmd": draw.mermaid, "md": draw.mermaid, "dot": draw.dot}
    formats |= {"gv": draw.dot, "svg": draw.svg}
    if name not in formats:
        near = closest(name, ["mermaid", "dot", "svg"])
        raise UsageError(f"--format {name}: no such format{near}")
    return formats[name](program)


def _graph_json(program: Program) -> dict[str, Any]:
    from lpml.graph import edges

    return {
        "program": program.name,
        "nodes": [
            {
                "name": node.name,
                "group": node.group,
                "service": node.interface.service,
                "methods": sorted(node.interface.methods),
                "has_run": node.interface.has_run,
                "colocation": node.colocation,
            }
            for node in program.nodes
        ],
        "edges": [
            {"source": edge.source, "target": edge.target, "parameter": edge.parameter}
            for edge in edges(program)
        ],
    }


@verb
def list_(json_: Json = False) -> None:
    """List the prebuilt programs, those of other packages too."""
    from lpml.cli import programs

    found = programs.prebuilt(summaries=True)
    if json_:
        print(json.dumps([vars(program) for program in found.values()]))
        return
    from lpml.cli import tables

    tables.print_programs(list(found.values()))


def _find(context: typer.Context, target: str, help_: bool) -> Factory:
    """The factory; or, where help is wanted, shows it and leaves."""
    from lpml.cli import factories

    if target.startswith("-"):
        if not help_:
            raise UsageError(
                f"{target}: the program comes before its flags; "
                f"write lpml {context.info_name} PROGRAM {target} ..."
            )
        target = ""
    if help_ and not target:
        print(context.get_help())
        raise typer.Exit
    if not target:
        raise UsageError(
            f"lpml {context.info_name}: no program given; give a file, such as program.py, or a "
            "name that `lpml list` shows"
        )
    factory = factories.find(target)
    if help_:
        from lpml.cli.arguments import print_usage

        print_usage(factory)
        print(f"lpml's own flags: see lpml {context.info_name} --help.", end=" ")
        print("What follows -- is the program's, even if lpml has a flag of that name.")
        raise typer.Exit
    return factory


def _program(context: typer.Context, target: str, help_: bool) -> Program:
    from lpml.cli.arguments import build

    factory = _find(context, target, help_)
    own = [flag for option in context.command.params for flag in option.opts if "--" in flag]
    return build(factory, context.args, own)
