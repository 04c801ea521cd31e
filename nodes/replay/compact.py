"""Trees of arrays as one block of bytes: what a batch or an insert is while it is sent.

Pickling ten small arrays one by one costs more than drawing the batch they are. Here a tree is its
bytes, joined, and a plan that says what they are. Plans recur, so each is pickled and read once.
The arrays of a large tree may have been made in one block, where they are sent from: see `Arena`.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np

MOST = 1 << 16
"""Bytes up to which joining is cheaper than sending arrays as they are."""
_ALIGN = 64
_PADDING = [np.zeros(-size % _ALIGN, np.uint8) for size in range(_ALIGN)]
_PLANS = 512  # kept; more of them means that they do not recur

Joined: TypeAlias = "tuple[bytes, bytearray | pickle.PickleBuffer, list[int]]"
"""The pickle of a plan, the bytes of all arrays, and what the plan leaves open: the length of each
array and each integer; -1 = `None`."""


class Plan(NamedTuple):
    """What a tree is, without its bytes."""

    key: tuple[Any, ...]
    """Preorder: of a container its class (with the keys of a dict) and its number of children, of
    an array its dtype and the shape of a row (`None`, if it has no axis), `int` of an integer."""


class _Reader(NamedTuple):
    """A plan, made ready to build trees."""

    fields: list[tuple[Any, Any, int]]
    """dtype, shape of a row, bytes of a row; dtype `None` = an integer."""
    build: Callable[[Any], Any]
    """From an iterator over the leaves."""


_pickled: dict[tuple[Any, ...], bytes] = {}  # {key: pickle of the plan, b"" = cannot be joined}
_read: dict[bytes, _Reader] = {}  # {pickle of a plan: what builds it}


def join(tree: Any) -> Joined | None:
    """What `split` makes `tree` of again; `None` if it is not one block, or holds anything unusual.

    Containers are tuples, named tuples, lists and dicts; leaves are contiguous arrays, integers
    of at least 0 and `None`.
    """
    key: list[Any] = []
    arrays: list[Any] = []
    numbers: list[int] = []
    if not _flatten(tree, key, arrays, numbers):
        return None
    plan = tuple(key)
    pickled = _pickled.get(plan)
    if pickled is None:
        if len(_pickled) >= _PLANS:
            _pickled.clear()
        pickled = _pickled[plan] = _pickle(plan)
    if not pickled:
        return None
    if sum([array.nbytes for array in arrays]) > MOST:
        block = _find_block(arrays)
        return None if block is None else (pickled, pickle.PickleBuffer(block), numbers)
    pieces: list[Any] = []
    for array in arrays:
        pieces.append(array)
        if array.nbytes % _ALIGN:
            pieces.append(_PADDING[array.nbytes % _ALIGN])
    try:
        return pickled, bytearray().join(pieces), numbers
    except (TypeError, ValueError, BufferError):  # not contiguous
        return None


def split(pickled: bytes, data: Any, numbers: list[int]) -> Any:
    """The tree that `join` was given; its arrays lie in `data`."""
    reader = _read.get(pickled)
    if reader is None:
        if len(_read) >= _PLANS:
            _read.clear()
        reader = _read[pickled] = _make_reader(pickle.loads(pickled))
    leaves: list[Any] = []
    at = 0
    for (dtype, row, size), number in zip(reader.fields, numbers, strict=True):
        if dtype is None:
            leaves.append(None if number < 0 else number)
            continue
        shape = row if number < 0 else (number, *row)
        leaves.append(np.ndarray(shape, dtype, data, at))
        at += -(-size * abs(number) // _ALIGN) * _ALIGN  # without an axis it is one row
    return reader.build(iter(leaves))


def reduce_joined(tree: Any, protocol: Any) -> Any:
    """`__reduce_ex__` of a named tuple that is sent often: as one block, if it can be."""
    joined = join(tree) if protocol >= 5 else None
    return object.__reduce_ex__(tree, protocol) if joined is None else (split, joined)


@final
class Arena:
    """Makes arrays one after another, in one block of memory.

    Args:
      memory: the block; `None` = every array has memory of its own, and is counted only.
    """

    def __init__(self, memory: memoryview | None) -> None:
        self._block = None if memory is None else np.frombuffer(memory, np.uint8)
        self.size = 0
        """Bytes that the arrays take so far."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array. Where the block is full, it has memory of its own."""
        at = self.size
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.size += -(-size // _ALIGN) * _ALIGN
        if self._block is None or self.size > len(self._block):
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, self._block, at)

    def copy(self, array: Any) -> Any:
        """The same array, made here."""
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made


def _find_block(arrays: list[Any]) -> Any:
    """The block that is nothing but these arrays, made in this order by an `Arena`."""
    block = arrays[0].base
    if type(block) is not np.ndarray or block.ndim != 1 or block.dtype != np.uint8:
        return None
    begin = at = block.__array_interface__["data"][0]
    for array in arrays:
        if array.__array_interface__["data"][0] != at or not array.flags.c_contiguous:
            return None
        at += -(-array.nbytes // _ALIGN) * _ALIGN
    return block if at - begin == block.nbytes else None


def _flatten(tree: Any, key: list[Any], arrays: list[Any], numbers: list[int]) -> bool:
    """Collects a container; `False` if it cannot be joined."""
    kind = type(tree)
    key.append(kind)
    if kind is dict:
        key.append(tuple(tree))
        tree = tree.values()
    elif not issubclass(kind, (tuple, list)):
        return False
    key.append(len(tree))
    for child in tree:
        kind = type(child)
        if kind is np.ndarray:
            shape = child.shape
            key.append(child.dtype)
            if shape:
                numbers.append(shape[0])
                key.append(shape[1:])
            else:
                numbers.append(-1)
                key.append(None)
            arrays.append(child)
        elif child is None or (kind is int and child >= 0):
            key.append(int)
            numbers.append(-1 if child is None else child)
        elif not _flatten(child, key, arrays, numbers):
            return False
    return True


def _pickle(key: tuple[Any, ...]) -> bytes:
    for entry in key:
        if isinstance(entry, np.dtype):
            usual = entry.isbuiltin == 1 and not entry.hasobject
        elif isinstance(entry, type) and entry not in (int, tuple, list, dict):
            usual = getattr(entry, "_fields", None) is not None
        else:
            usual = True
        if not usual:
            return b""
    return pickle.dumps(Plan(key), 5)


def _make_reader(plan: Plan) -> _Reader:
    fields: list[tuple[Any, Any, int]] = []
    build = _make_builder(iter(plan.key), fields)
    return _Reader(fields, build)


def _make_builder(key: Any, fields: list[tuple[Any, Any, int]]) -> Callable[[Any], Any]:
    """What builds the next node of a plan from an iterator over leaves."""
    kind: Any = next(key)
    if kind is int:
        fields.append((None, None, 0))
        return next
    if isinstance(kind, np.dtype):
        row = next(key)
        size = kind.itemsize
        for length in row or ():
            size *= length
        fields.append((kind, () if row is None else row, size))
        return next
    names = next(key) if kind is dict else None
    parts = [_make_builder(key, fields) for _ in range(next(key))]
    if kind is list:
        return lambda leaves: [part(leaves) for part in parts]
    if kind is tuple:
        return lambda leaves: tuple([part(leaves) for part in parts])
    if names is not None:
        return lambda leaves: dict(zip(names, [part(leaves) for part in parts], strict=True))
    named: Any = kind
    make = named._make
    return lambda leaves: make([part(leaves) for part in parts])
