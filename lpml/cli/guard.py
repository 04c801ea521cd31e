"""What every verb does about errors: a message, and an exit code."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from lpml.errors import Error, GraphError, UsageError

P = ParamSpec("P")


def verb(function: Callable[P, int | None]) -> Callable[P, None]:
    """Makes a verb of typer's of a function that returns an exit code or raises."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        import typer

        as_json = bool(kwargs.get("json_"))
        raise typer.Exit(exit_code(lambda: function(*args, **kwargs), as_json=as_json))

    return guarded


def exit_code(action: Callable[[], int | None], *, as_json: bool) -> int:
    """Calls `action` and returns its exit code; errors of lpml become a message and a code."""
    try:
        code = action() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `lpml logs | head`: nobody reads on, and that is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Error as error:
        return _report(error, as_json=as_json)
    return code


def _report(error: Error, *, as_json: bool) -> int:
    from lpml.cli.explain import as_dict, explain

    if as_json:
        print(json.dumps({"error": as_dict(error)}))
    else:
        print(explain(error), file=sys.stderr)
    return 2 if isinstance(error, (UsageError, GraphError)) else 1
