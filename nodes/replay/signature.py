"""The shape of one step: names, shapes and dtypes of its fields, checked on insert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from lpml.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]
Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """One array of a step, without the batch axis."""

    name: str
    """The path in the step, such as `observation/pixels`."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


@final
class Signature:
    """Names, shapes and dtypes of the fields of one step.

    A step is a nested container of arrays: tuples (named ones too), lists, dicts with string keys,
    `None` for nothing.

    Args:
      example: a step whose leaves have `shape` and `dtype`: arrays, numpy scalars,
        `jax.ShapeDtypeStruct`. A Python number stands for float32, int32 or bool.

    Raises:
      UsageError: a leaf is no array, or there is none.
    """

    __slots__ = ("_build", "_template", "fields")

    def __init__(self, example: Any) -> None:
        self._template = _describe(example, "")
        fields: list[Field] = []
        _collect(self._template, fields)
        if not fields:
            raise UsageError(f"signature {example!r} has no array: give a step with its arrays")
        self.fields: tuple[Field, ...] = tuple(fields)
        self._build = _builder(self._template)

    def flatten(self, tree: Any, what: str = "step") -> list[Any]:
        """The leaves of `tree` in the order of `fields`; not looked at, only found.

        Raises:
          UsageError: the containers differ; the message names the field.
        """
        leaves: list[Any] = []
        _match(self._template, tree, what, leaves)
        return leaves

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The step that has these leaves, in the order of `fields`."""
        return self._build(iter(leaves))

    def columns(self, tree: Any, what: str = "steps") -> tuple[list[Array], int]:
        """The arrays `[N, ...]` of a batch of steps, checked, with N.

        Raises:
          UsageError: a shape, a dtype or a length is not what was declared; names the field.
        """
        columns = [np.asarray(leaf) for leaf in self.flatten(tree, what)]
        length = columns[0].shape[0] if columns[0].ndim else 0
        for field, column in zip(self.fields, columns, strict=True):
            if column.dtype != field.dtype or column.shape[1:] != field.shape or not column.ndim:
                raise UsageError(
                    f"{what}: field {field.name!r} is {column.dtype.name}{list(column.shape)}, "
                    f"declared as {_batched(field)}; convert it, or change the signature"
                )
            if column.shape[0] != length:
                raise UsageError(
                    f"{what}: field {field.name!r} has {column.shape[0]} rows, field "
                    f"{self.fields[0].name!r} has {length}; give every field one row per step"
                )
        return columns, length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and bool(self._template == other._template)

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Signature({', '.join(f'{field.name}: {field}' for field in self.fields)})"

    def __getstate__(self) -> Any:
        return self._template

    def __setstate__(self, template: Any) -> None:
        self._template = template
        fields: list[Field] = []
        _collect(template, fields)
        self.fields = tuple(fields)
        self._build = _builder(template)


def signature_of(example: Any) -> Signature:
    """`example` if it is a signature, else the signature that it shows."""
    return example if isinstance(example, Signature) else Signature(example)


def _batched(field: Field) -> str:
    return f"{field.dtype.name}[{', '.join(['N', *map(str, field.shape)])}]"


def _join(path: str, name: object) -> str:
    return f"{path}/{name}" if path else str(name)


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """The named children of a container; `None` for a leaf."""
    if isinstance(tree, Mapping):
        return [(str(key), tree[key]) for key in sorted(tree)]
    if isinstance(tree, tuple) and (names := getattr(tree, "_fields", None)) is not None:
        return list(zip(names, tree, strict=True))
    if isinstance(tree, (tuple, list)):
        return [(str(index), child) for index, child in enumerate(tree)]
    return None


def _like(tree: Any, children: list[Any]) -> Any:
    """A container like `tree` with other children."""
    if isinstance(tree, Mapping):
        return dict(zip(sorted(tree), children, strict=True))
    if getattr(tree, "_fields", None) is not None:
        return type(tree)(*children)
    return type(tree)(children)


def _describe(tree: Any, path: str) -> Any:
    if tree is None or isinstance(tree, Field):
        return tree
    children = _children(tree)
    if children is not None:
        return _like(tree, [_describe(child, _join(path, name)) for name, child in children])
    return _leaf(tree, path or "value")


def _leaf(value: Any, name: str) -> Field:
    if isinstance(value, (bool, int, float)):
        kind = np.bool_ if isinstance(value, bool) else np.int32
        return Field(name, (), np.dtype(np.float32 if isinstance(value, float) else kind))
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    try:
        field = Field(name, tuple(int(size) for size in shape or ()), np.dtype(dtype))
    except TypeError:
        field = None
    if field is None or shape is None or dtype is None or field.dtype.hasobject:
        raise UsageError(
            f"signature: field {name!r} is {value!r}, which has no shape and numeric dtype; "
            "give an array or a jax.ShapeDtypeStruct"
        )
    return field


def _collect(template: Any, fields: list[Field]) -> None:
    if isinstance(template, Field):
        fields.append(template)
    elif template is not None:
        for _, child in _children(template) or ():
            _collect(child, fields)


def _match(template: Any, tree: Any, path: str, leaves: list[Any]) -> None:
    if isinstance(template, Field):
        if tree is None or isinstance(tree, Mapping):
            raise UsageError(f"{path}: got {type(tree).__name__}, declared as {template}")
        leaves.append(tree)
        return
    if template is None:
        if tree is not None:
            raise UsageError(f"{path}: got {type(tree).__name__}, declared as None")
        return
    if type(tree) is type(template) and isinstance(template, tuple) and len(tree) == len(template):
        for index, child in enumerate(template):  # the common case, made short
            if isinstance(child, Field):
                leaf = tree[index]
                if leaf is not None and type(leaf) is not dict:
                    leaves.append(leaf)
                    continue
            _match(child, tree[index], _join(path, _name(template, index)), leaves)
        return
    expected, given = _children(template) or [], _children(tree)
    if given is None or isinstance(tree, Mapping) != isinstance(template, Mapping):
        raise UsageError(
            f"{path}: got {type(tree).__name__}, declared as {type(template).__name__} of "
            f"{', '.join(name for name, _ in expected)}"
        )
    if [name for name, _ in expected] != [name for name, _ in given]:
        missing = [name for name, _ in expected if name not in dict(given)]
        unknown = [name for name, _ in given if name not in dict(expected)]
        raise UsageError(
            f"{path}: missing {missing}, not declared {unknown}; give the fields of the signature"
        )
    for (name, child), (_, leaf) in zip(expected, given, strict=True):
        _match(child, leaf, _join(path, name), leaves)


def _name(template: Any, index: int) -> object:
    names = getattr(template, "_fields", None)
    return index if names is None else names[index]


def _builder(template: Any) -> Callable[[Iterator[Any]], Any]:
    """What makes a container like `template` from an iterator over its leaves."""
    if isinstance(template, Field):
        return next
    if template is None:
        return lambda leaves: None
    parts = [_builder(child) for _, child in _children(template) or ()]
    if isinstance(template, Mapping):
        names = sorted(template)
        return lambda leaves: dict(zip(names, [part(leaves) for part in parts], strict=True))
    make = getattr(type(template), "_make", type(template))
    return lambda leaves: make([part(leaves) for part in parts])
