"""Which of the launcher's modules the nodes will need, by the names in what is sent to them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from lpml.launchers.forkserver import FORK_SAFE, preloads


def needed(payloads: Sequence[bytes]) -> list[str]:
    """The imported modules that a forkserver should import before it forks these nodes.

    A payload names what it refers to. Of a package that may be imported before a fork, all that
    the launcher has imported of it is taken, and so it is for the packages that a named module
    uses itself: `program` names `jax` by its own globals. Too few cost a node the time of an
    import, too many cost it once for all nodes.
    """
    packages = {name for name in FORK_SAFE if name in sys.modules and _named(name, payloads)}
    modules = [name for name in list(sys.modules) if _is_a_users(name) and _named(name, payloads)]
    for name in modules:
        packages |= _used_by(sys.modules.get(name))
    imported = list(sys.modules)
    packages -= {"lpml"}  # of which the nodes need what they name, not all that a launcher has
    return preloads([name for name in imported if _package(name) in packages] + modules)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_a_users(module: str) -> bool:
    """Whether a module may use packages that need time: it is none of those, nor Python's own."""
    package = _package(module)
    return package == "lpml" or not (package in FORK_SAFE or package in sys.stdlib_module_names)


def _named(module: str, payloads: Sequence[bytes]) -> bool:
    name = module.encode()
    return any(name in payload for payload in payloads)


def _used_by(module: ModuleType | None) -> set[str]:
    """The packages of FORK_SAFE that are seen in the globals of a module."""
    values: list[Any] = list(vars(module).values()) if isinstance(module, ModuleType) else []
    return {_package(_origin(value)) for value in values} & FORK_SAFE


def _origin(value: object) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    origin = getattr(value, "__module__", None) or type(value).__module__
    return origin if isinstance(origin, str) else ""
