"""Memory in which a large result is made where it is sent from, so that it need not be copied.

A method that is being served asks for it and makes arrays there; when its result is pickled, the
buffer is found to lie in a segment already.
"""

from __future__ import annotations

import threading
from typing import final

from lpml.wire import memory
from lpml.wire.segments import LARGE, Sender


@final
class _Here(threading.local):
    sender: Sender | None = None
    """Of the connection whose call this thread is running."""


here = _Here()


def room_for_result(size: int) -> memoryview | None:
    """Writable memory of `size` bytes for the result of the call that this thread is serving.

    `None` where it would be of no use: in a call from the same process, or for so little. The
    result must have one buffer, which is all of this memory; else it is copied as any other. It
    may be kept after the method has returned, but not be changed.
    """
    sender = here.sender
    if sender is None or size < LARGE or not memory.supported:
        return None
    return sender.reserve(size)
