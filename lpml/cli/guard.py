"""What every verb does about errors: a message, and an exit code."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from lpml.errors import Error, GraphError, UsageError

P = ParamSpec("P")


def verb(function: Callable[P, int | None]) -> Callable[P, None]:
    """Turns the errors of a verb into a message and an exit code."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs) or 0
            sys.stdout.flush()
        except KeyboardInterrupt:
            code = 130
        except BrokenPipeError:  # `lpml logs | head`: nobody reads on, and that is no failure
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Error as error:
            code = _report(error, as_json=bool(kwargs.get("json_")))
        raise typer.Exit(code)

    return guarded


def _report(error: Error, *, as_json: bool) -> int:
    from lpml.cli.explain import as_dict, explain

    if as_json:
        print(json.dumps({"error": as_dict(error)}))
    else:
        print(explain(error), file=sys.stderr)
    return 2 if isinstance(error, (UsageError, GraphError)) else 1
