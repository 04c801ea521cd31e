"""Values to bytes: pickle 5 with buffers out of band.

Most calls carry a few numbers and strings; these take the plain C pickler. Everything else takes
`lpml.wire.pickler` (cloudpickle, arrays, `Shared`), which is loaded when it is first needed.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

from lpml.wire.carried import Carried

SIMPLE = frozenset({int, float, bool, complex, str, bytes, type(None)})
dumps = pickle.dumps
_NOTHING = dumps(None, 5)


class Encoded(NamedTuple):
    """A pickled value of which parts are out of band.

    The buffers are views of the caller's own memory: copy or send them before it may change.
    """

    body: bytes
    buffers: list[memoryview]
    shared: list[Carried]


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | Encoded:
    """The body of a call: `args`, or `(args, kwargs)` where there are keywords."""
    if kwargs:
        return _encode((args, kwargs))
    for value in args:
        if type(value) not in SIMPLE:
            return _encode(args)
    return dumps(args, 5)


def encode(value: Any) -> bytes | Encoded:
    """A result or an item; just bytes where nothing is out of band."""
    if value is None:
        return _NOTHING
    if type(value) in SIMPLE:
        return dumps(value, 5)
    return _encode(value)


def _encode(value: Any) -> bytes | Encoded:
    from lpml.wire import pickler

    body, buffers, shared = pickler.dumps(value)
    return Encoded(body, buffers, shared) if buffers or shared else body


decode = pickle.loads
"""`decode(body, buffers=...)`: what `encode` was given. Only for peers that are authenticated."""


def culprit(value: Any) -> str:
    """Words for the first part of a call's arguments or of a result that cannot be pickled."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        args, kwargs = value
        parts = [(f"argument {index + 1}", part) for index, part in enumerate(args)]
        parts += [(f"argument {name!r}", part) for name, part in kwargs.items()]
    for words, part in parts:
        try:
            encode(part)
        except Exception:
            return f"{words}, a {type(part).__qualname__},"
    return f"a {type(value).__qualname__}"
