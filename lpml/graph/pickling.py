"""A pickler that finds handles wherever they hide, and names what cannot be pickled.

Values are pickled by cloudpickle, so functions and classes of a notebook or of `__main__` work.
A handle is written as the name of its node; where it is read back, a client takes its place.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, Protocol, final

from lpml.errors import GraphError
from lpml.graph.culprits import find_culprit
from lpml.graph.handle import Handle, NotAdded, Origin, origin_of


@final
@dataclass(frozen=True)
class Pickled:
    """Bytes, and the names of the nodes whose handles are in them, each once."""

    data: bytes
    handles: tuple[str, ...]


class _File(Protocol):
    def write(self, data: Any, /) -> object: ...


class _Nowhere:
    def write(self, data: Any, /) -> object:
        return len(data)


def dumps(value: object) -> Pickled:
    """Pickles any value, handles included.

    Raises:
      GraphError: something in the value cannot be pickled; the message has the attribute path to
        it. Or a handle belongs to a node that was not added to a program.
    """
    file = io.BytesIO()
    try:
        origins = _write(value, file)
    except Exception as error:
        raise GraphError(find_culprit("value", value, error, scan)) from error
    return Pickled(file.getvalue(), tuple(origin.name or "" for origin in origins))


def scan(value: object) -> tuple[Origin, ...]:
    """The nodes whose handles are in a value, each once. Copies no large buffer.

    Raises:
      Exception: whatever pickling raises.
    """
    return _write(value, _Nowhere(), buffer_callback=lambda buffer: None)


def loads(data: bytes, resolve: Callable[[str], object]) -> object:
    """Reads what `dumps` wrote.

    Args:
      data: trusted bytes: unpickling runs code.
      resolve: gives the client for a node's name; called once per name.
    """
    return _Unpickler(io.BytesIO(data), functools.cache(resolve)).load()


def _write(
    value: object, file: _File, buffer_callback: Callable[[Any], object] | None = None
) -> tuple[Origin, ...]:
    pickler = _pickler_class()(file, protocol=5, buffer_callback=buffer_callback)
    pickler.origins = {}  # an ordered set
    pickler.dump(value)
    return tuple(pickler.origins)


@functools.cache
def _pickler_class() -> Any:
    import cloudpickle

    table: Any = cloudpickle.Pickler.dispatch_table

    class GraphPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it ships no types
        origins: dict[Origin, None]
        dispatch_table = ChainMap({CodeType: _reduce_code}, table)

        def persistent_id(self, value: object) -> str | None:  # called for every object there is
            if type(value) is not Handle:
                return None
            origin = origin_of(value)
            if origin.name is None:
                raise NotAdded(f"the handle of {origin} is passed on, but its node was not added")
            self.origins[origin] = None
            return origin.name

    return GraphPickler


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    """As cloudpickle does, but with the file's name, so that tracebacks show source lines."""
    import cloudpickle

    table: Any = cloudpickle.Pickler.dispatch_table
    make, args = table[CodeType](code)
    return make, tuple(code.co_filename if arg == "<dynamic-code>" else arg for arg in args)


@final
class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, resolve: Callable[[str], object]) -> None:
        super().__init__(file)
        self._resolve = resolve

    def persistent_load(self, name: Any) -> object:
        return self._resolve(name)
