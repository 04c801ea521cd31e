"""Programs and nodes in tests: started with a time limit, reached from inside."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lpml.clock import Clock
from lpml.context import Context, entered
from lpml.errors import UsageError

if TYPE_CHECKING:
    from lpml.graph import Program
    from lpml.launchers import Run

S = TypeVar("S")


@contextlib.contextmanager
def node(
    name: str = "tested/0",
    *,
    clock: Clock | None = None,
    directory: Path | None = None,
    on_stop: Callable[[str], None] | None = None,
) -> Iterator[Context]:
    """Runs the block as code of a node, without a program: `lpml.context()` there is this node's.

    Args:
      name: `group/index`.
      clock: its time, such as a `VirtualClock`; `None` = real time.
      directory: a run folder for its metrics; `None` = nothing is written.
      on_stop: receives the reason of `stop_program`; `None` = the node's clock stops, so that
        loops and waits in the block end.

    Example:
      >>> import lpml
      >>> with node("actor/3") as context:
      ...     lpml.context().stop_program("enough")
      ...     context.should_stop
      True
    """
    group, _, index = name.rpartition("/")
    context = Context(
        name,
        group,
        int(index),
        clock=clock,
        program="test",
        directory=directory,
        on_stop=on_stop or (lambda reason: context.clock.stop()),
    )
    try:
        with entered(context):
            yield context
    finally:
        context.close()


@contextlib.contextmanager
def running(
    program: Program, launch: str = "test", *, timeout: float = 60.0, **options: Any
) -> Iterator[Run]:
    """Runs a program for the length of the block, and at most `timeout` seconds.

    Leaving the block stops the program. A failure of a node is raised there, unless the block
    raised first. What nodes print is not shown.

    Args:
      program: the graph.
      launch: the launcher; on `test` and `local_mt` nodes are threads, which `service` looks into.
      timeout: real seconds after which the program is stopped as failed; calls that the block
        waits for fail then.
      options: passed on to `lpml.launch`.

    Raises:
      NodeError: a node failed, or the time was over.
    """
    from lpml.launchers import launch as start

    with start(program, launch, **{"terminal": False, "time_limit": timeout, **options}) as run:
        yield run


def service(run: Run, name: str, cls: type[S], timeout: float = 10.0) -> S:
    """The object inside the node `name` of a run on threads, once its constructor has returned.

    Its methods may run in the node meanwhile; take care with what is not `concurrent`.

    Args:
      run: a run of the launcher `test` or `local_mt`.
      name: such as `learner/0`.
      cls: the class of the object, which types the result.
      timeout: real seconds to wait for the constructor.

    Raises:
      UsageError: there is no such node, it is another process, or its service is no `cls`.
      NodeError: a node failed meanwhile.
      TimeoutError: the constructor did not return in time.
    """
    run.client(name)  # raises where there is no such node
    pause = threading.Event()
    end = time.monotonic() + timeout
    while (found := run._engine.service(name)) is None:
        if run.failure is not None:
            raise run.failure
        if time.monotonic() > end:
            raise TimeoutError(f"service({name!r}): not constructed after {timeout} s")
        pause.wait(0.002)
    if not isinstance(found, cls):
        raise UsageError(f"service({name!r}): a {type(found).__name__}, not a {cls.__name__}")
    return found
