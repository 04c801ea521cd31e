"""The command line: its verbs, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from lpml.cli import program_verbs, run_verbs
from lpml.cli.render import render

app = typer.Typer(
    name="lpml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Runs distributed machine-learning programs: typed graphs of services.",
    epilog="Exit codes: 0 finished, 1 a node failed, 2 bad usage or program, 130 interrupted, "
    "143 preempted by SIGTERM.",
)
_WITH_FLAGS: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}

for _verb in (program_verbs.run, program_verbs.check, program_verbs.plan, program_verbs.graph):
    app.command(
        context_settings=_WITH_FLAGS,
        add_help_option=False,  # `--help` after a program shows the flags of that program
        epilog=f"The program's own flags follow it; see `lpml {_verb.__name__} PROGRAM --help`.",
    )(_verb)
app.command()(program_verbs.resume)
app.command("list")(program_verbs.list_)
app.command()(run_verbs.ps)
app.command()(run_verbs.stop)
app.command()(run_verbs.stack)
app.command()(run_verbs.scale)
app.command()(run_verbs.logs)
app.command()(run_verbs.plot)
app.command()(render)


def _version(wanted: bool) -> None:
    if wanted:
        import lpml

        print(f"lpml {lpml.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def main(argv: Sequence[str]) -> NoReturn:
    """Runs one command line and exits with its code."""
    app(args=list(argv), prog_name="lpml")
    raise SystemExit(0)
