"""launch(): a program becomes a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpml.errors import UsageError
from lpml.launchers.compiling import compile
from lpml.launchers.names import check_name
from lpml.launchers.run import Run

# The rest is imported when something is launched: `import lpml` stays cheap.
if TYPE_CHECKING:
    from lpml.graph.program import Program

TEST_TIME_LIMIT = 60.0
"""Seconds that a run of the launcher `test` may last where nothing else was said."""


def launch(
    program: Program,
    launch: str = "local_mp",
    *,
    address: str | None = None,
    directory: Path | str | None = None,
    terminal: bool = True,
    stop_timeout: float = 10.0,
    start_timeout: float = 120.0,
    time_limit: float | None = None,
    checkpoint_every: float | None = None,
    resume: Path | str | None = None,
    command: Mapping[str, Any] | None = None,
) -> Run:
    """Starts a program. Returns as soon as every node is on its way.

    Args:
      program: the graph.
      launch: where it runs: `local_mp` processes, `local_mt` threads, `ray` actors of a Ray
        cluster, `test` threads with a time limit and a run folder that is removed at the end.
      address: of the Ray cluster, for `ray`: `auto` (the one of this machine) or `HOST:PORT`;
        `None` = that of RAY_ADDRESS, and without one a Ray of this run on this machine.
      directory: the folder that run folders are made in; `None` = `LPML_RUNS`, else `./runs`.
      terminal: whether what nodes print is shown here, each line with its node.
      stop_timeout: seconds that a stop may take before what still runs is killed.
      start_timeout: seconds that the constructor of a node may take.
      time_limit: seconds after which the run fails if it has not ended; `None` = never, and 60
        for `test`.
      checkpoint_every: seconds from one checkpoint of all stateful nodes to the next; the last is
        taken when the run stops. `None` = none is taken unless `Run.checkpoint` asks.
      resume: the folder of a run of this program that has ended: goes on from its last checkpoint,
        in the same folder.
      command: kept in the run folder: what `lpml resume` needs to make the program again.

    Raises:
      GraphError: the program has faults.
      UsageError: there is no such launcher, or the run to be resumed still goes on, or is of
        another program.
      LaunchError: the machine refused something: a folder, a socket, a process.

    Example:
      >>> import lpml
      >>> class Hello:
      ...     def greet(self, name: str) -> str:
      ...         return f"hello {name}"
      >>> program = lpml.Program("hello")
      >>> _ = program.add_node(lpml.Node(Hello), label="hello")
      >>> with lpml.launch(program, "test") as run:
      ...     run.client("hello/0").greet("you")
      'hello you'
    """
    import shutil
    import tempfile

    from lpml.launchers import rendezvous
    from lpml.record.folder import RunFolder

    check_name(launch)
    plan = compile(program, launch, address=address)
    temporary = launch == "test" and directory is None
    if launch == "test" and time_limit is None:
        time_limit = TEST_TIME_LIMIT
    if checkpoint_every is not None and not checkpoint_every > 0:
        raise UsageError(f"checkpoint_every={checkpoint_every}: give seconds above 0, or None")
    place = tempfile.gettempdir() if temporary else directory
    resumed = None
    if resume is not None:
        from lpml.launchers.resuming import prepare

        temporary = False
        folder, resumed = prepare(plan, resume)
    else:
        folder = RunFolder.create(program.name, None if place is None else Path(place))
    sockets = None
    try:
        content = plan.to_json()
        before = folder.read_json(folder.program_json)
        content["command"] = dict(command) if command else before.get("command", {})
        folder.write_json(folder.program_json, content)
        sockets = rendezvous.make(folder.name)
        run = Run(
            plan,
            folder,
            sockets,
            terminal=terminal,
            stop_timeout=stop_timeout,
            start_timeout=start_timeout,
            time_limit=time_limit,
            temporary=temporary,
            checkpoint_every=checkpoint_every,
            resumed=resumed,
        )
        run._start(sockets)
    except BaseException:
        if sockets is not None:
            rendezvous.remove(sockets)
        if resume is None:  # nothing ran, so there is nothing to keep
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return run
