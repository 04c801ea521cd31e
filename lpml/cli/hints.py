"""Which packages a program will import, guessed from its source so that they can be warmed early.

The guess may be wrong in both directions; it only decides what is imported before it is needed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lpml.cli.programs import OWN, source_of

_IMPORT = re.compile(rb"^(?:from +([\w.]+) +import +([^\n#]*)|import +([^\n#]+))", re.MULTILINE)
_WINGS = ("lpml.nodes", "lpml.agents", "lpml.programs")
_MAX_FILES = 40
_MAX_BYTES = 1_000_000


def hints(target: str) -> tuple[str, ...]:
    """Top-level packages that a program's source imports, its neighbours and lpml's wings included.

    Args:
      target: what the command line was given: `program.py`, `program.py:name` or a name.
    """
    first = _source(target)
    if first is None:
        return ()
    found: set[str] = set()
    seen = {first}
    waiting = [first]
    while waiting and len(seen) <= _MAX_FILES:
        for module in _imports(waiting.pop(), first.parent):
            if isinstance(module, str):
                found.add(module)
            elif module not in seen:
                seen.add(module)
                waiting.append(module)
    return tuple(sorted(found.difference(sys.stdlib_module_names)))


def _source(target: str) -> Path | None:
    name = target.partition(":")[0]
    if name.endswith(".py"):
        path = Path(name)
        return path.absolute() if path.is_file() else None
    return source_of(OWN.get(name, name).partition(":")[0])


def _imports(path: Path, home: Path) -> Iterator[str | Path]:
    """Packages by name, and files that are to be looked into as well."""
    for module, names in _modules(path):
        if module.startswith("."):
            base = path.parents[len(module) - len(module.lstrip(".")) - 1]
            places = [base.joinpath(*module.lstrip(".").split("."))]
        elif module == "lpml" or module.startswith("lpml."):
            wings = [name for name in (module, *names) if name.startswith(_WINGS)]
            yield from filter(None, map(source_of, wings))
            continue
        else:
            places = [home.joinpath(*module.split("."))]
        near = [place.with_suffix(".py") for place in places]
        if near[0].is_file():
            yield near[0]
        elif not module.startswith("."):
            yield module.partition(".")[0]


def _modules(path: Path) -> Iterator[tuple[str, list[str]]]:
    """What the unindented import lines of a file name: `(module, what is imported from it)`."""
    try:
        text = b"" if path.stat().st_size > _MAX_BYTES else path.read_bytes()
    except OSError:
        return
    for origin, names, plain in _IMPORT.findall(text):
        if plain:
            yield from (
                (part.split()[0].decode(), []) for part in plain.split(b",") if part.split()
            )
            continue
        module = origin.decode()
        words = [part.split()[0].decode() for part in names.split(b",") if part.split()]
        yield module, [f"{module}.{word}" for word in words]
