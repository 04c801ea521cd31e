"""`Shared`: an immutable value, published once and read by many without copying."""

from __future__ import annotations

import os
import pickle
import struct
import threading
import weakref
from typing import Any, Generic, TypeVar, final

from lpml.errors import ProtocolError
from lpml.wire import memory
from lpml.wire.carried import Carried
from lpml.wire.memory import File
from lpml.wire.messages import end_of, offsets

Buffer = bytes | memoryview
T_co = TypeVar("T_co", covariant=True)

# Bytes up to which a value is sent along, rather than its descriptor: pages of a new file cost
# about fifteen times what copying them into a segment in use does (0.2 ms for 340 kB).
_SMALL = 1 << 20
_NOTHING = object()
FIND = "lpml_shared"
"""The method by which every node gives the values that other hosts were told of."""

_known: weakref.WeakValueDictionary[bytes, Shared[Any]] = weakref.WeakValueDictionary()


@final
class Shared(Carried, Generic[T_co]):
    """An immutable value, published once and handed to any number of readers without copying.

    The value is copied into shared memory here and now; what happens to the original later does
    not matter. A call that carries a `Shared`, as an argument, in a result or inside another
    value, hands over a descriptor, whatever the size. Readers map the memory read-only.

    Args:
      value: a pytree of arrays, or anything that can be pickled. jax arrays become numpy arrays.

    Example:
      >>> Shared({"step": 3}).value
      {'step': 3}
    """

    __slots__ = ("__weakref__", "_body", "_buffers", "_file", "_lock", "_value", "id", "nbytes")

    def __init__(self, value: T_co) -> None:
        from lpml.wire.pickler import dumps

        body, buffers, inner = dumps(value)
        if inner:
            raise TypeError("a Shared value cannot hold another Shared; put its value in")
        self._set(os.urandom(16), None, b"", ())
        if memory.supported and len(body) + sum(b.nbytes for b in buffers) > _SMALL:
            self._publish([memoryview(body), *buffers])
        else:
            self._set(os.urandom(16), None, body, tuple([bytes(buffer) for buffer in buffers]))
        _known[self.id] = self

    def _set(
        self, identity: bytes, file: File | None, body: bytes, buffers: tuple[Buffer, ...]
    ) -> None:
        self.id = identity
        self.nbytes = 0  # of its file, where it has one
        self._file = file
        self._body = body
        self._buffers = buffers
        self._value: Any = _NOTHING
        self._lock = threading.Lock()

    def _publish(self, pieces: list[memoryview]) -> None:
        lengths = [piece.nbytes for piece in pieces]
        head = memoryview(struct.pack(f"<{len(lengths) + 1}Q", len(lengths), *lengths))
        every = [head.nbytes, *lengths]
        file = memory.create(end_of(every))
        memory.write(file, zip(offsets(every), [head, *pieces], strict=True))
        memory.seal(file, content=True)
        self._file, self.nbytes = file, end_of(every)

    @property
    def value(self) -> T_co:
        """The value; the same object each time, not to be modified. Its arrays are read-only."""
        if self._value is _NOTHING:
            with self._lock:
                if self._value is _NOTHING:
                    self._value = self._load()
        value: T_co = self._value
        return value

    @property
    def file(self) -> File:
        """What is sent in place of the value, if `nbytes` is not 0."""
        assert self._file is not None
        return self._file

    def reference(self) -> tuple[Any, ...]:
        """What is pickled in its place where its descriptor travels beside the message."""
        return _by_id, (self.id,)

    def _load(self) -> Any:
        if self._file is None:
            return pickle.loads(self._body, buffers=self._buffers)
        body, *buffers = _pieces(self._file, self.nbytes)
        return pickle.loads(body, buffers=buffers)

    def __repr__(self) -> str:
        return f"<Shared {self.id.hex()[:8]}>"

    def __deepcopy__(self, memo: object) -> Shared[T_co]:
        return self  # immutable

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._file is None:
            buffers = tuple(map(pickle.PickleBuffer if protocol >= 5 else bytes, self._buffers))
            return _inline, (self.id, self._body, buffers)  # out of band: copied once
        copies = [bytes(piece) for piece in _pieces(self._file, self.nbytes)]
        return _inline, (self.id, copies[0], tuple(copies[1:]))


def _pieces(file: File, size: int) -> list[memoryview]:
    view = memoryview(memory.map_readonly(file, size))
    try:
        (count,) = struct.unpack_from("<Q", view)
        lengths = struct.unpack_from(f"<{count}Q", view, 8)
    except (struct.error, MemoryError, OverflowError) as error:
        raise ProtocolError(f"a Shared value has no proper table: {error}") from None
    every = [8 * (count + 1), *lengths]
    if end_of(every) > size:
        raise ProtocolError(f"a Shared value of {size} bytes says it has {end_of(every)}")
    return [view[at : at + length] for at, length in zip(offsets(every), every, strict=True)][1:]


def _make(
    identity: bytes, file: File | None, size: int, body: bytes, buffers: tuple[Buffer, ...]
) -> Shared[Any]:
    known = _known.get(identity)
    if known is not None:
        return known
    shared: Shared[Any] = Shared.__new__(Shared)
    shared._set(identity, file, body, buffers)
    shared.nbytes = size
    return _known.setdefault(identity, shared)


def _inline(identity: bytes, body: bytes, buffers: tuple[Buffer, ...]) -> Shared[Any]:
    readonly = tuple(memoryview(buffer).toreadonly() for buffer in buffers)
    return _make(identity, None, 0, body, readonly)


def received(identity: bytes, file: File, size: int) -> Shared[Any]:
    """The `Shared` of a descriptor that came; the one we have if we have it already."""
    memory.check_size(file, size)
    return _make(identity, file, size, b"", ())


def content(file: File, size: int) -> memoryview:
    """What is in the file of a `Shared`, for a peer that its descriptor cannot reach."""
    return memoryview(memory.map_readonly(file, size))


def received_whole(identity: bytes, data: memoryview) -> Shared[Any]:
    """The `Shared` whose content came; the one we have if we have it already."""
    known = _known.get(identity)
    if known is not None:
        return known
    file = memory.create(data.nbytes)
    memory.write(file, [(0, data)])
    memory.seal(file, content=True)
    return received(identity, file, data.nbytes)


def find(identity: bytes) -> Shared[Any] | None:
    """The `Shared` of this id, if this process has it."""
    return _known.get(identity)


def _by_id(identity: bytes) -> Shared[Any]:
    """The `Shared` that came with the message that is being unpickled."""
    return _known[identity]
