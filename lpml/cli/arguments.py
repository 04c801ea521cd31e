"""Flags from the signature of a program factory; the one file that imports tyro."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lpml.cli.factories import Factory
from lpml.errors import Error, UsageError, closest

if TYPE_CHECKING:
    from lpml.graph import Program


class FlagError(UsageError):
    """The flags of a program are wrong. `shown` is tyro's explanation, drawn for a terminal."""

    def __init__(self, message: str, shown: str) -> None:
        super().__init__(message)
        self.shown = shown


class FactoryError(UsageError):
    """The factory raised something of its own; the original is the `__cause__`."""


def build(factory: Factory, flags: Sequence[str], others: Sequence[str] = ()) -> Program:
    """Calls the factory with what the flags say.

    Args:
      factory: what `factories.find` found.
      flags: such as `["--num-workers", "8"]`.
      others: flags that may have been meant, too, where one is unknown: lpml's own.

    Raises:
      FlagError: a flag is unknown, missing or has a value that does not fit.
      FactoryError: the factory raised.
      UsageError: it did not return a Program.
    """
    from lpml.graph import Program

    make = parse(factory, flags, others)
    try:
        made = make()
    except Error:
        raise
    except Exception as error:
        raise FactoryError(f"{factory.target}: making the program failed") from error
    if not isinstance(made, Program):
        raise UsageError(
            f"{factory.target}: {factory.function.__name__}() returned a "
            f"{type(made).__name__}; it must return the lpml.Program that it made"
        )
    return made


def parse(
    factory: Factory, flags: Sequence[str], others: Sequence[str] = ()
) -> Callable[[], Program]:
    """The factory with its arguments, not called yet; arguments and errors as of `build`."""
    if not flags and _needs_nothing(factory.function):
        return factory.function  # without tyro, which takes a moment to import
    import tyro

    text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # tyro draws as the encoding permits
    try:
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
            parsed: Callable[[], Program] = tyro.cli(
                _deferred(factory.function), args=list(flags), prog=f"lpml run {factory.target}"
            )
    except SystemExit as stop:
        text.seek(0)
        shown = text.read()
        if "Could not create CLI parser" in shown:
            raise _no_flags(factory, _plain(shown).partition("•")[2]) from None
        if "Unrecognized options" in shown:
            _refuse_unknown(factory, flags, others)
        raise FlagError(f"{factory.target}: {_plain(shown)}", shown) from stop
    except Exception as error:
        with contextlib.redirect_stdout(io.StringIO()):
            print_usage(factory)  # raises, if it is not the values that cannot be
        why = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{factory.target}: {why}") from error
    return parsed


def print_usage(factory: Factory) -> None:
    """Prints the flags of a program and its docstring, for `--help`."""
    import tyro

    try:
        tyro.cli(
            _deferred(factory.function),
            args=["--help"],
            prog=f"lpml run {factory.target} [LPML FLAGS]",
        )
    except SystemExit:
        return
    except Exception as error:
        raise _no_flags(factory, str(error)) from error


def _no_flags(factory: Factory, why: str) -> UsageError:
    return UsageError(
        f"{factory.target}: no flags can be made of the parameters of "
        f"{factory.function.__name__}(): {' '.join(why.split())}; "
        "annotate each with a plain type or give it a default"
    )


def _refuse_unknown(factory: Factory, flags: Sequence[str], others: Sequence[str]) -> None:
    """Raises for the first flag that there is not; tyro itself compares with its own only."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_usage(factory)
    known = {*re.findall(r"--[\w.-]+", _plain(text.getvalue())), *others}
    for flag in flags:
        name = flag.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            message = f"{factory.target}: {name}: no such flag{closest(name, sorted(known))}"
            raise FlagError(message, f"lpml: {message}")


def _needs_nothing(function: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in rest for p in parameters)


def _deferred(function: Callable[..., Program]) -> Callable[..., Callable[[], Program]]:
    """The same signature, but the call waits: what the factory raises is not tyro's to catch."""

    @functools.wraps(function)
    def defer(*args: object, **kwargs: object) -> Callable[[], Program]:
        return functools.partial(function, *args, **kwargs)

    return defer


def _plain(shown: str) -> str:
    """tyro's explanation on one line, without colours and boxes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    text = re.sub(r"[╭╮╰╯─│]+|-{3,}", " ", text)
    return " ".join(text.split())
