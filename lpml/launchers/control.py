"""The service by which other processes watch and stop a run: `lpml ps`, `stop`, `stack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, final

from lpml import wire
from lpml.context import Context
from lpml.launchers.status import RunStatus
from lpml.service import concurrent, interface_of


class ControlledRun(Protocol):
    """What the service needs of a run."""

    def status(self) -> RunStatus: ...

    def request_stop(self, reason: str = "", timeout: float | None = None) -> None: ...

    def stack(self, name: str, timeout: float = 5.0) -> str: ...

    def scale(self, group: str, count: int) -> tuple[str, ...]: ...

    def checkpoint(self, timeout: float = 60.0) -> Path: ...


@final
class Control:
    """Asks one run."""

    def __init__(self, run: ControlledRun) -> None:
        self._run = run

    @concurrent
    def status(self) -> dict[str, Any]:
        """What every node is doing, as plain data."""
        return self._run.status().to_json()

    @concurrent
    def stop(self, reason: str = "", timeout: float | None = None) -> None:
        """Asks for the end and returns at once; the run is over when its socket is gone."""
        self._run.request_stop(reason, timeout)

    @concurrent
    def scale(self, group: str, count: int) -> list[str]:
        """As `Run.scale`."""
        return list(self._run.scale(group, count))

    @concurrent
    def checkpoint(self, timeout: float = 60.0) -> str:
        """As `Run.checkpoint`."""
        return str(self._run.checkpoint(timeout))

    @concurrent
    def stack(self, node: str, timeout: float = 5.0) -> str:
        """The stacks of a node."""
        return self._run.stack(node, timeout)


INTERFACE = interface_of(Control)


@final
class ControlServer:
    """Serves `Control` of a run on `control.sock` in its socket folder."""

    def __init__(self, run: ControlledRun, sockets: Path) -> None:
        context = Context("control/0", "control")
        dispatcher = wire.Dispatcher(Control(run), INTERFACE, context, "control")
        self._server = wire.Server(dispatcher, wire.listen(sockets / "control.sock"))

    def start(self) -> None:
        """Answers from now on."""
        self._server.start()

    def close(self) -> None:
        """Stops answering."""
        self._server.close()


def connect(address: str) -> Any:
    """A client of the control service at `address` (`RunInfo.control`)."""
    return wire.connect(address, INTERFACE, node="control", caller="lpml")
