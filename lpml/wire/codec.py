"""Values to bytes: pickle 5 with buffers out of band.

Most calls carry a few numbers and strings; these take the plain C pickler. Everything else takes
`lpml.wire.pickler` (cloudpickle, arrays, `Shared`), which is loaded when it is first needed.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

_SIMPLE = frozenset({int, float, bool, complex, str, bytes, type(None)})
_NOTHING = pickle.dumps(None, 5)


class Encoded(NamedTuple):
    """A pickled value.

    The buffers are views of the caller's own memory: copy or send them before it may change.
    """

    body: bytes
    buffers: list[memoryview] = []  # noqa: RUF012  never written: replaced where there are any
    shared: list[Any] = []  # noqa: RUF012


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Encoded:
    """The body of a call: `args`, or `(args, kwargs)` where there are keywords."""
    if not kwargs:
        for value in args:
            if type(value) not in _SIMPLE:
                break
        else:
            return Encoded(pickle.dumps(args, 5))
        return _encode(args)
    return _encode((args, kwargs))


def encode(value: Any) -> Encoded:
    """A result or an item."""
    if value is None:
        return Encoded(_NOTHING)
    if type(value) in _SIMPLE:
        return Encoded(pickle.dumps(value, 5))
    return _encode(value)


def _encode(value: Any) -> Encoded:
    from lpml.wire.pickler import dumps

    return Encoded(*dumps(value))


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
