"""Finds runs, those that go on and those of the past, and asks them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lpml import wire
from lpml.cli.tables import NO_ANSWER
from lpml.clock import current_clock, deadline
from lpml.errors import CallError, Error, LaunchError, NodeUnavailable, UsageError, closest
from lpml.launchers import NodeStatus, RunStatus, control, rendezvous
from lpml.launchers.rendezvous import RunInfo
from lpml.record.folder import RunFolder

_PATIENCE = 10.0  # seconds for an answer of a run
_GLANCE = 3.0  # the same, where there are others to show
_INTERVAL = 0.05  # seconds between two looks whether a run has ended


def infos() -> list[RunInfo]:
    """The runs that go on, the oldest first."""
    return rendezvous.runs()


def find(name: str) -> RunInfo:
    """The run that goes on under this name, or whose name begins so; with "" the only one.

    Raises:
      UsageError: there is none, or there are several.
    """
    there = infos()
    if not there:
        raise UsageError("no run goes on on this machine (`lpml ps` shows them)")
    exact = [info for info in there if info.run == name or Path(info.folder) == Path(name or "-")]
    chosen = exact or [info for info in there if info.run.startswith(name)]
    names = [info.run for info in there]
    if not chosen:
        raise UsageError(f"{name}: no such run goes on{closest(name, names)}")
    if len(chosen) > 1:
        raise UsageError(f"{len(chosen)} runs go on; say which: {', '.join(i.run for i in chosen)}")
    return chosen[0]


def live() -> list[RunStatus]:
    """What the runs that go on say of themselves; one that does not answer is shown as such."""
    return [_status(info) for info in infos()]


def ended(directory: Path | None = None) -> list[RunStatus]:
    """The last status of each run folder."""
    found = []
    for folder in RunFolder.all(directory):
        status = _saved(folder)
        if status is not None:
            found.append(status)
    return found


def stop(info: RunInfo, reason: str, timeout: float) -> bool:
    """Asks a run to stop and waits for its end; says whether it ended within `timeout` seconds.

    Raises:
      LaunchError: it does not answer.
    """
    clock = current_clock()
    end = clock.time() + timeout
    client = _client(info)
    try:
        with deadline(_PATIENCE):
            client.stop(reason)
    except NodeUnavailable:  # it ended before it could answer
        pass
    except CallError as error:
        raise _no_answer(info, error) from error
    finally:
        wire.close(client)
    while info.run in {other.run for other in infos()}:
        if clock.time() >= end:
            return False
        clock.wait(_INTERVAL)
    return True


def stack(info: RunInfo, node: str) -> str:
    """The stacks of a node of a run.

    Raises:
      UsageError: there is no such node.
      LaunchError: the run does not answer.
    """
    client = _client(info)
    try:
        with deadline(_PATIENCE):
            return str(client.stack(node))
    except UsageError as error:  # raised over there; the text says it all
        raise UsageError(str(getattr(error, "cause", error))) from None
    except CallError as error:
        raise _no_answer(info, error) from error
    finally:
        wire.close(client)


def scale(info: RunInfo, group: str, count: int) -> list[str]:
    """The nodes that a group of a run has from now on.

    Raises:
      UsageError: it cannot have so many; the message says why.
      LaunchError: the run does not answer.
    """
    client = _client(info)
    try:
        with deadline(_PATIENCE):
            return list(client.scale(group, count))
    except UsageError as error:  # raised over there; the text says it all
        raise UsageError(str(getattr(error, "cause", error))) from None
    except CallError as error:
        raise _no_answer(info, error) from error
    finally:
        wire.close(client)


def _client(info: RunInfo) -> Any:
    return control.connect(info.control)


def _no_answer(info: RunInfo, error: Error) -> LaunchError:
    return LaunchError(
        f"the run {info.run} (process {info.pid}) does not answer: {error}; "
        f"if it hangs, end it by `kill {info.pid}`"
    )


def _status(info: RunInfo) -> RunStatus:
    client = _client(info)
    try:
        with deadline(_GLANCE):
            status = _from_json(client.status())
        if status is not None:
            return status
    except CallError:
        pass
    finally:
        wire.close(client)
    saved = _saved(RunFolder(info.folder))
    seconds = current_clock().wall_time() - info.started
    nodes = saved.nodes if saved is not None else ()
    return RunStatus(
        info.run, info.program, info.launch, "running", NO_ANSWER, seconds, info.folder, nodes
    )


def _saved(folder: RunFolder) -> RunStatus | None:
    """What `status.json` says."""
    return _from_json(folder.read_json(folder.status_json))


def _from_json(content: dict[str, Any]) -> RunStatus | None:
    """What `RunStatus.to_json` was made of; fields of another version are left out."""
    try:
        nodes = tuple(_node_from_json(node) for node in content.pop("nodes"))
        return RunStatus(**_known(RunStatus, content), nodes=nodes)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def _node_from_json(content: dict[str, Any]) -> NodeStatus:
    metrics = {name: float(value) for name, value in content.get("metrics", {}).items()}
    return NodeStatus(**{**_known(NodeStatus, content), "metrics": metrics})


def _known(cls: type, content: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in content.items() if name in names}
