"""How long a thread waits for the kernel before it looks around."""

from __future__ import annotations

from lpml.clock import current_call
from lpml.errors import CallCancelled

PATIENCE = 0.25
"""Seconds for which the kernel waits before we look at deadlines and cancellations again."""


def check_caller() -> None:
    """Raises if the call in which this thread waits for another was cancelled."""
    call = current_call.get()
    if call is not None and call.cancelled:
        raise CallCancelled("the call that made this one was cancelled")
