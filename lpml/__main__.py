"""`python -m lpml`, and the command `lpml`."""

from __future__ import annotations

import sys


def main() -> None:
    """The command line, with the arguments of this process."""
    argv = sys.argv[1:]
    _warm(argv)
    from lpml.cli.main import main as run

    run(argv)


def _warm(argv: list[str]) -> None:
    """Starts the process from which nodes are forked first of all: it warms while we import."""
    words = [word for word in argv if not word.startswith("-")]
    if words[:1] != ["run"] or len(words) < 2:
        return
    if {"--help", "-h"}.intersection(argv) or "local_mt" in " ".join(argv) or "test" in words:
        return
    from lpml.cli.hints import hints
    from lpml.launchers import processes

    processes.warm(hints(words[1]))


if __name__ == "__main__":
    main()
