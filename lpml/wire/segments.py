"""The pool of shared-memory segments; `Shared` values."""

from __future__ import annotations

import os
import pickle
import weakref
from typing import Any, Generic, TypeVar, final

T_co = TypeVar("T_co", covariant=True)

_known: weakref.WeakValueDictionary[bytes, Shared[Any]] = weakref.WeakValueDictionary()


@final
class Shared(Generic[T_co]):
    """An immutable value, published once and handed to any number of readers without copying."""

    def __init__(self, value: T_co) -> None:
        from lpml.wire.pickler import dumps

        body, buffers, _ = dumps(value)
        self.id = os.urandom(16)
        self.nbytes = 0
        self._body = body
        self._buffers = [bytes(buffer) for buffer in buffers]
        _known[self.id] = self

    @property
    def value(self) -> T_co:
        value: T_co = pickle.loads(self._body, buffers=self._buffers)
        return value

    def __reduce__(self) -> Any:
        return _inline, (self.id, self._body, self._buffers)


def _inline(identity: bytes, body: bytes, buffers: list[bytes]) -> Shared[Any]:
    shared: Shared[Any] = Shared.__new__(Shared)
    shared.id, shared.nbytes, shared._body, shared._buffers = identity, 0, body, buffers
    return shared


def shared_by_id(identity: bytes) -> Shared[Any]:
    """The `Shared` that came with the message that is being unpickled."""
    return _known[identity]
