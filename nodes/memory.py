"""What a device holds and a program of it takes: refused before it runs, not killed in it."""

from __future__ import annotations

import os
from typing import Any

import jax

from lpml.errors import UsageError


def device_memory() -> int:
    """Bytes of the first device, or of the machine where the device has none of its own."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    limit = statistics.get("bytes_limit")
    return int(limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def check_program(
    function: Any, args: tuple[Any, ...], what: str, count: int, memory: int | None = None
) -> None:
    """Compiles a jitted function for these arguments, for its calls too, and adds up what it takes.

    Args:
      function: what `jax.jit` returned.
      args: of a call; they are not given away.
      what: of which there are too many if it takes too much, such as "num_envs".
      count: how many of these there are.
      memory: bytes there are; `None` = those of the device.

    Raises:
      UsageError: it would take more than there is; the message has both, and a count that fits.
    """
    found = function.lower(*args).compile().memory_analysis()
    if found is None:  # the backend does not say
        return
    needed = found.temp_size_in_bytes + found.argument_size_in_bytes
    needed += found.output_size_in_bytes - found.alias_size_in_bytes
    check_bytes(needed, what, count, memory)


def check_bytes(needed: int, what: str, count: int, memory: int | None = None) -> None:
    """Raises UsageError if so many bytes for so many of `what` are more than there are."""
    memory = device_memory() if memory is None else memory
    if needed > memory:
        raise UsageError(
            f"{what}={count} take {needed / 2**30:.1f} GiB at least, there are "
            f"{memory / 2**30:.1f} GiB; {count * memory // (2 * needed)} would leave half free"
        )
