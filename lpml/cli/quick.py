"""Reads a plain `lpml run` line without typer, which takes longer to load than a program to start.

Whatever is not plain, such as `--help`, a mistake or the shell asking for completion, is left to
typer, which declares the same flags in `program_verbs`; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpml.cli.running import Options

VALUES: Mapping[str, tuple[str, Callable[[str], object]]] = {  # flag -> (option, how to read it)
    "--launch": ("launch", str),
    "--address": ("address", str),
    "--directory": ("directory", Path),
    "--runs-dir": ("directory", Path),
    "--stop-timeout": ("stop_timeout", float),
    "--start-timeout": ("start_timeout", float),
    "--checkpoint-every": ("checkpoint_every", float),
}
SWITCHES: Mapping[str, tuple[str, bool]] = {
    "--plain": ("live", False),
    "--quiet": ("quiet", True),
    "-q": ("quiet", True),
    "--json": ("json", True),
}


@dataclass(frozen=True)
class Line:
    """A line `lpml run`, read."""

    target: str
    flags: tuple[str, ...]
    """Those of the program."""
    options: Options


def read(argv: Sequence[str]) -> Line | None:
    """The line, or `None` where it is not plain."""
    if argv[:1] != ["run"] or "_LPML_COMPLETE" in os.environ:
        return None
    words, rest = list(argv[1:]), []
    options: dict[str, object] = {}
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--":
            rest += words
            break
        if word in ("--help", "-h"):
            return None
        if word in SWITCHES:
            name, setting = SWITCHES[word]
            options[name] = setting
        elif flag in VALUES:
            if not equals:
                if not words:
                    return None
                value = words.pop(0)
            name, convert = VALUES[flag]
            try:
                options[name] = convert(value)
            except ValueError:
                return None
        else:
            rest.append(word)
    if not rest or rest[0].startswith("-"):
        return None
    made = dataclasses.replace(Options(), **options)  # type: ignore[arg-type]  # as VALUES says
    return Line(rest[0], tuple(rest[1:]), made)


def run(line: Line) -> int:
    """Runs the program and returns the exit code."""
    from lpml.cli import factories, resuming, running
    from lpml.cli.arguments import build
    from lpml.cli.guard import exit_code

    def action() -> int:
        program = build(factories.find(line.target), line.flags, [*VALUES, *SWITCHES, "--help"])
        command = resuming.command(line.target, line.flags, line.options)
        return running.run(program, dataclasses.replace(line.options, command=command))

    return exit_code(action, as_json=line.options.json)
