"""Programs and nodes in tests: started with a time limit, reached from inside."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpml.clock import Clock
from lpml.context import Context, entered

if TYPE_CHECKING:
    from lpml.graph import Program
    from lpml.launchers import Run


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
    raised first.

    Args:
      program: the graph.
      launch: the launcher; `test` and `local_mt` use threads, so `service(run, name)` works.
      timeout: real seconds after which the program is stopped and the block fails.
      options: passed on to `lpml.launch`.

    Raises:
      NodeError: a node failed.
      TimeoutError: the block took longer than `timeout`.
    """
    from lpml.launchers import launch as start

    options.setdefault("terminal", False)
    run = start(program, launch, **options)
    late = threading.Event()

    def give_up() -> None:
        late.set()
        run.stop(f"the test took longer than {timeout} s", timeout=1.0)

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        with run:
            yield run
    except Exception as error:
        if late.is_set():
            raise TimeoutError(
                f"program {program.name!r} did not come to an end in {timeout} s; it was stopped"
            ) from error
        raise
    finally:
        timer.cancel()
        timer.join()
    if late.is_set():
        raise TimeoutError(f"program {program.name!r} took longer than {timeout} s")
