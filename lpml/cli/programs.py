"""Prebuilt programs by name: lpml's own, and those that other packages offer.

A package offers one by an entry point of the group `lpml.programs`::

    [project.entry-points."lpml.programs"]
    my-program = "my_package.programs:program"

Names are strings here; what they stand for is imported when it is run.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GROUP = "lpml.programs"
OWN: Mapping[str, str] = {  # equals pyproject.toml; there for a clone that is not installed
    "anakin": "lpml.programs.on_device:program",
    "dqn": "lpml.programs.dqn:program",
    "digits": "lpml.programs.supervised.parameter_server:program",
    "hello": "lpml.programs.hello:program",
    "impala": "lpml.programs.impala:program",
    "ppo": "lpml.programs.ppo:program",
    "sebulba": "lpml.programs.sebulba:program",
    "world_and_labels": "lpml.programs.world_and_labels.program:program",
}


@dataclass(frozen=True)
class Prebuilt:
    """A program that has a name."""

    name: str
    target: str
    """`module:factory`."""
    package: str
    """The distribution that offers it."""
    summary: str = ""
    """The first line of its docstring."""


def prebuilt(summaries: bool = False) -> dict[str, Prebuilt]:
    """Every prebuilt program, by name; lpml's own win over others of the same name.

    Args:
      summaries: read the docstrings too, from the sources; nothing is imported.
    """
    from importlib.metadata import entry_points

    found = {}
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else ""
        found[entry.name] = Prebuilt(entry.name, entry.value, package)
    found.update({name: Prebuilt(name, target, "lpml") for name, target in OWN.items()})
    if summaries:
        found = {
            name: Prebuilt(name, program.target, program.package, _summary(program.target))
            for name, program in found.items()
        }
    return dict(sorted(found.items()))


def target_of(name: str) -> str | None:
    """`module:factory` of a prebuilt program, or `None`; lpml's own without asking packages."""
    if name in OWN:
        return OWN[name]
    program = prebuilt().get(name)
    return None if program is None else program.target


def source_of(module: str) -> Path | None:
    """The source file of a module, found without importing it or its parents."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _summary(target: str) -> str:
    module, _, factory = target.partition(":")
    path = source_of(module)
    if path is None:
        return f"(cannot be run: there is no module {module})"
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return "(cannot be read)"
    places: list[ast.FunctionDef | ast.Module] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == factory
    ]
    for node in [*places, tree]:
        text = ast.get_docstring(node)
        if text:
            return text.strip().splitlines()[0]
    return ""
