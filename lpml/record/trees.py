"""Trees of arrays and scalars as files: JSON for the structure, npz for the arrays. No pickle.

::

    counter-0.json     the tree; an array is written as its place in the npz
    counter-0.npz      the arrays, where there are any; each with a checksum

What can be saved: dicts, lists, tuples, named tuples and frozen dataclasses (by the name of their
class, which is looked up when the tree is read), `None`, bool, int, float, str, bytes, enums,
arrays of numpy and jax, and jax's random keys.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, final

from lpml.errors import LaunchError, UsageError
from lpml.record.folder import disk_error


class UnreadableTree(LaunchError):
    """A saved tree is damaged, or was made by code that is not here."""


def copied(tree: Any) -> Any:
    """The tree as it is saved: what its owner does to it later changes nothing.

    Raises:
      UsageError: something in it cannot be saved; the message has the path to it.
    """
    return _Writer().write(tree, "state")


def save(stem: Path, tree: Any) -> int:
    """Writes a tree that `copied` returned to `stem` with two endings; returns the bytes.

    Raises:
      LaunchError: the disk is full.
    """
    writer: _Writer = tree.writer
    try:
        size = _write(stem.with_name(f"{stem.name}.json"), json.dumps(tree.node).encode())
        if writer.arrays:
            import numpy as np

            path = stem.with_name(f"{stem.name}.npz")
            with path.open("wb") as file:
                np.savez(file, **{str(i): array for i, array in enumerate(writer.arrays)})
                file.flush()
                os.fsync(file.fileno())
                size += file.tell()
    except OSError as error:
        raise disk_error(stem, error) from error
    return size


def load(stem: Path) -> Any:
    """Reads what `save` wrote.

    Raises:
      UnreadableTree: it is not all there, or a class of it cannot be imported.
    """
    try:
        node = json.loads(stem.with_name(f"{stem.name}.json").read_bytes())
        path = stem.with_name(f"{stem.name}.npz")
        if not path.exists():
            return _Reader({}).read(node)
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            return _Reader(arrays).read(node)
    except UnreadableTree:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise UnreadableTree(
            f"{stem}: cannot be read ({type(error).__name__}: {error}); resume an older checkpoint"
        ) from error


def _write(path: Path, data: bytes) -> int:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data)


@final
class _Copy:
    """A tree ready to be written."""

    def __init__(self, node: Any, writer: _Writer) -> None:
        self.node = node
        self.writer = writer


_PLAIN = (bool, int, float, str, type(None))


@final
class _Writer:
    """Turns a tree into JSON and a list of arrays."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []

    def write(self, tree: Any, path: str) -> _Copy:
        return _Copy(self._node(tree, path), self)

    def _node(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in (list, tuple):
            items = [self._node(item, f"{path}[{i}]") for i, item in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if isinstance(value, dict):
            return {
                "dict": [
                    [self._node(key, path), self._node(item, f"{path}[{key!r}]")]
                    for key, item in value.items()
                ]
            }
        if isinstance(value, bytes):
            return {"bytes": base64.b85encode(value).decode()}
        if isinstance(value, enum.Enum):
            return {"enum": _name(kind, path), "value": value.name}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._object(value, getattr(value, "_fields"), path)  # noqa: B009 - pyright
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(field.name for field in dataclasses.fields(value) if field.init)
            return self._object(value, names, path)
        return self._array(value, path)

    def _object(self, value: Any, names: tuple[str, ...], path: str) -> Any:
        fields = {name: self._node(getattr(value, name), f"{path}.{name}") for name in names}
        return {"object": _name(type(value), path), "fields": fields}

    def _array(self, value: Any, path: str) -> Any:
        jax = sys.modules.get("jax")
        if jax is not None and isinstance(value, jax.Array):
            if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                data = self._array(jax.random.key_data(value), path)
                return {"key": str(jax.random.key_impl(value)), "data": data}
            return {**self._place(value, path), "jax": True}
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
            place = self._place(value, path)
            return place if isinstance(value, numpy.ndarray) else {**place, "scalar": True}
        raise UsageError(
            f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be "
            "saved; return arrays, scalars, strings and containers of them from save()"
        )

    def _place(self, value: Any, path: str) -> dict[str, Any]:
        import numpy as np

        array = np.array(value)  # a copy
        if array.dtype.hasobject:
            raise UsageError(f"{path} is an array of objects; save arrays of numbers or of text")
        node: dict[str, Any] = {"array": len(self.arrays)}
        if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and its like
            node["dtype"] = str(array.dtype)
            array = array.view(f"u{array.dtype.itemsize}")
        self.arrays.append(array)
        return node


def _name(cls: type, path: str) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in name or cls.__module__ == "__main__":
        raise UsageError(
            f"{path} is a {name}, which cannot be found again by its name; "
            "define the class at the top of a module, or save its fields in a dict"
        )
    return name


@final
class _Reader:
    """Turns JSON and arrays back into a tree."""

    def __init__(self, arrays: Any) -> None:
        self._arrays = arrays

    def read(self, node: Any) -> Any:
        if isinstance(node, _PLAIN):
            return node
        if isinstance(node, list):
            return [self.read(item) for item in node]
        if "tuple" in node:
            return tuple(self.read(item) for item in node["tuple"])
        if "dict" in node:
            return {self.read(key): self.read(item) for key, item in node["dict"]}
        if "bytes" in node:
            return base64.b85decode(node["bytes"])
        if "enum" in node:
            return _class(node["enum"], enum.Enum)[node["value"]]
        if "object" in node:
            fields = {name: self.read(item) for name, item in node["fields"].items()}
            return _class(node["object"], object)(**fields)
        if "key" in node:
            import jax

            return jax.random.wrap_key_data(self.read(node["data"]), impl=node["key"])
        return self._array(node)

    def _array(self, node: dict[str, Any]) -> Any:
        array = self._arrays[str(node["array"])]
        if "dtype" in node:
            import ml_dtypes
            import numpy as np

            array = array.view(np.dtype(getattr(ml_dtypes, node["dtype"])))
        if node.get("scalar"):
            return array[()]
        if node.get("jax"):
            import jax.numpy as jnp

            return jnp.asarray(array)
        return array


def _class(name: str, base: type) -> Any:
    """A class by its name. Only values are made of it: named tuples, dataclasses, enums."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UnreadableTree(
            f"a checkpoint has a {name}, and there is none here ({error}); "
            "install the version that it was made with"
        ) from error
    value = isinstance(found, type) and issubclass(found, base)
    if not value or not (
        base is enum.Enum or hasattr(found, "_fields") or dataclasses.is_dataclass(found)
    ):
        raise UnreadableTree(f"a checkpoint has a {name}, which is no class of plain values here")
    return found
