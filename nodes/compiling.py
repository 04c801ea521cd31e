"""Compilation: what runs once is not optimised, and a stop does not wait for what lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

import lpml
from lpml.ending import begin_work

T = TypeVar("T")


def in_background(function: Callable[..., object], *args: Any) -> None:
    """Runs a function that nothing can interrupt in a thread, and waits until it has returned.

    Raises:
      ProgramStopped: the program is stopping; the function goes on, and nobody waits for it.
      Exception: what the function raised.
    """
    changed = lpml.context().clock.condition()
    end = begin_work(f"{lpml.context().name}: a function in the background")

    def wake(_: object) -> None:
        end()
        with changed:
            changed.notify_all()

    future = lpml.future(function, *args)
    future.add_done_callback(wake)
    with changed:
        changed.wait_for(future.done)
    future.result()


def run_once(function: Callable[..., T], *args: Any) -> T:
    """What the function, for `jit`, returns; compiled without optimisation, in half the time."""
    lowered = jax.jit(function).lower(*args)
    result: T = lowered.compile(compiler_options={"xla_backend_optimization_level": "0"})(*args)
    return result
