"""Finds the factory of a program: in a file, in a module, or by its prebuilt name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lpml.errors import UsageError, closest

if TYPE_CHECKING:
    from lpml.graph import Program

DEFAULT = "program"
"""The name of the factory that is taken where a file has several."""


@dataclass(frozen=True)
class Factory:
    """A function that makes a program, and what the command line called it."""

    target: str
    """As it was given: `program.py`, `program.py:name`, `module:name` or a prebuilt name."""
    function: Callable[..., Program]


class ProgramFileError(UsageError):
    """The user's file raised while it was imported; the original is the `__cause__`."""


def find(target: str) -> Factory:
    """The factory that `target` names.

    The module of a file is imported under the file's stem, with its folder first on `sys.path`,
    so that nodes import its classes by the same name.

    Raises:
      UsageError: no such file, module or function, or several functions to choose from.
      ProgramFileError: importing it raised.
    """
    place, _, name = target.partition(":")
    if _is_path(place):
        module = _import_file(Path(place))
    else:
        module, name = _import_name(target)
    return Factory(target, _choose(module, name, place))


def _is_path(place: str) -> bool:
    if place.endswith(".py") or "/" in place or place in (".", ".."):
        return True
    return "." in place and Path(place).exists()


def _import_name(target: str) -> tuple[ModuleType, str]:
    from lpml.cli.programs import prebuilt, target_of

    place, _, name = target.partition(":")
    found = target_of(place)
    if found is not None:
        module, _, default = found.partition(":")
        return _import_module(module, f"{place} ({found})"), name or default
    if "." in place or name:
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return _import_module(place, place), name
    if Path(f"{place}.py").is_file():
        raise UsageError(f"{place}: no prebuilt program has this name; did you mean {place}.py?")
    raise UsageError(
        f"{place}: no prebuilt program has this name{closest(place, [*prebuilt()])} "
        "(`lpml list` shows them; a file is given with its ending, as program.py)"
    )


def _import_module(module: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ProgramFileError(f"{shown}: importing it failed") from error
        raise UsageError(
            f"{shown}: there is no module {error.name!r}; give one that can be imported from "
            f"{Path.cwd()}, or a file, such as program.py"
        ) from error
    except Exception as error:
        raise ProgramFileError(f"{shown}: importing it failed") from error


def _import_file(path: Path) -> ModuleType:
    _require_file(path)
    path = path.resolve()
    stem = path.stem
    loaded = sys.modules.get(stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None or stem in sys.stdlib_module_names:
        raise UsageError(
            f"{path.name}: a module {stem!r} exists already, and this file would hide it; "
            "give the file another name"
        )
    sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    if stem.isidentifier():
        return _import_stem(stem, path)
    return _import_by_value(path)


def _import_stem(stem: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file; give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[stem]
        raise ProgramFileError(f"{path}: importing it failed{_advice(error)}") from error
    return module


def _import_by_value(path: Path) -> ModuleType:
    """A file whose name is no identifier: nodes cannot import it, so its classes travel."""
    import cloudpickle

    stem = "".join(c if c.isalnum() else "_" for c in f"_{path.stem}")
    module = _import_stem(stem, path)
    cloudpickle.register_pickle_by_value(module)
    return module


def _advice(error: Exception) -> str:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "; a file inside a package is given as package.module:factory"
    return ""


def _require_file(path: Path) -> None:
    if path.is_file() and path.suffix == ".py":
        return
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.py"))
        raise UsageError(
            f"{path}: this is a folder; give a file of it{closest('program.py', files)}"
        )
    if path.exists():
        raise UsageError(f"{path}: not a Python file; give one that ends in .py")
    near = sorted(str(path.with_name(file.name)) for file in path.parent.glob("*.py"))
    advice = closest(str(path), near[:10]) or (
        f", nor any other Python file in {path.parent.resolve()}; give the path of one, "
        "package.module:factory, or a name that `lpml list` prints"
    )
    raise UsageError(f"{path}: no such file{advice}")


def _choose(module: ModuleType, name: str, place: str) -> Callable[..., Program]:
    if name:
        return _named(module, name, place)
    factories = _factories(module)
    if DEFAULT in factories:
        return factories[DEFAULT]
    if len(factories) == 1:
        return next(iter(factories.values()))
    if factories:
        listed = ", ".join(f"{place}:{name}" for name in factories)
        raise UsageError(
            f"{place}: {len(factories)} functions make a program; give one of {listed}"
        )
    from lpml.graph import Program

    made = [name for name, value in vars(module).items() if isinstance(value, Program)]
    if made:
        raise _no_function(f"{place}:{made[0]}")
    raise UsageError(
        f"{place}: no function makes a program; write `def program(...) -> lpml.Program:` in it, "
        "or name the function by file.py:function"
    )


def _named(module: ModuleType, name: str, place: str) -> Callable[..., Program]:
    from lpml.graph import Program

    value = getattr(module, name, None)
    if isinstance(value, Program):
        raise _no_function(f"{place}:{name}")
    if value is None:
        names = [*_factories(module)]
        raise UsageError(f"{place}: it has no {name!r}{closest(name, names)}")
    if not callable(value):
        raise UsageError(f"{place}:{name}: a {type(value).__name__} is no function")
    return typing.cast("Callable[..., Program]", value)


def _no_function(what: str) -> UsageError:
    return UsageError(
        f"{what}: this is a Program; give a function that makes one, so that every launch has its "
        "own and flags can change it"
    )


def _factories(module: ModuleType) -> dict[str, Callable[..., Program]]:
    """The functions that make programs: the module's own, else those it has imported."""
    found: dict[str, Callable[..., Program]] = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_")
        if name == DEFAULT or _makes_program(value)
    }
    own = {name: made for name, made in found.items() if made.__module__ == module.__name__}
    return own or found


def _makes_program(function: Callable[..., object]) -> bool:
    from lpml.graph import Program

    hint = getattr(function, "__annotations__", {}).get("return")
    if isinstance(hint, str):  # `from __future__ import annotations`
        if not hint.strip("\"' ").endswith("Program"):
            return False
        try:
            hint = eval(hint, getattr(function, "__globals__", {}))
        except Exception:  # a name that only the type checker sees: what it says is enough
            return hint.strip("\"' ") in ("Program", "lpml.Program")
    return inspect.isclass(hint) and issubclass(hint, Program)
