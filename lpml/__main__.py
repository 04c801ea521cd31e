"""`python -m lpml`, and the command `lpml`."""

from __future__ import annotations

import sys

from lpml.ending import end_with


def main() -> None:
    """The command line, with the arguments of this process."""
    code = 1
    try:
        _main(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:  # while something was imported
        code = 130
        raise SystemExit(code) from None
    finally:
        end_with(code)


def _main(argv: list[str]) -> None:
    _warm(argv)
    from lpml.cli import quick

    line = quick.read(argv)
    if line is not None:
        raise SystemExit(quick.run(line))
    from lpml.cli.main import main as run

    run(argv)


def _warm(argv: list[str]) -> None:
    """Starts the process from which nodes are forked before all else: it warms while we import."""
    words = [word for word in argv if not word.startswith("-")]
    if words[:1] != ["run"] or len(words) < 2 or {"--help", "-h"}.intersection(argv):
        return
    if _launch(argv) not in ("", "local_mp"):
        return
    from lpml.cli.hints import hints
    from lpml.errors import LaunchError
    from lpml.launchers.server_process import warm

    try:
        warm(hints(words[1]))
    except LaunchError:  # the launch itself will say so, in its place
        return


def _launch(argv: list[str]) -> str:
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--launch":
            return following
        if word.startswith("--launch="):
            return word.partition("=")[2]
    return ""


if __name__ == "__main__":
    main()
