"""Whether the methods of a service can be called from another node, as messages for people."""

from __future__ import annotations

import inspect
from collections.abc import Iterator


def method_faults(node: str, cls: type) -> tuple[str, ...]:
    """A fault for each public method of `cls` that is a coroutine; `run` may be one."""
    return tuple(_faults(node, cls))


def _faults(node: str, cls: type) -> Iterator[str]:
    for name in dir(cls):
        if name.startswith("_") or name == "run":
            continue
        method = inspect.getattr_static(cls, name)
        if isinstance(method, (staticmethod, classmethod)):
            method = method.__func__
        plain = inspect.unwrap(method) if inspect.isfunction(method) else method
        if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
            yield (
                f"{node}: {cls.__name__}.{name} is an `async def`, but calls are served by "
                "threads, not by an event loop; write a plain `def`, which callers may still "
                "await (lpml.acall) and which may call asyncio.run"
            )
