"""The part of a run on one host of several: a process launcher that is driven from another host."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from lpml.errors import LaunchError
from lpml.launchers import rendezvous
from lpml.launchers.base import Event, NodeReport
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.decisions import Decision
from lpml.launchers.names import version
from lpml.launchers.part import Membership, Part
from lpml.launchers.plan import Plan
from lpml.launchers.processes import ProcessLauncher
from lpml.launchers.seating import SOCKET, Seats
from lpml.record.folder import RunFolder
from lpml.wire.relay import RelayServer

_PATIENCE = 20.0  # seconds that `events` waits before it returns none


class Said(NamedTuple):
    """What a host says of one of its nodes."""

    report: NodeReport
    pid: int
    peak_memory: int


@final
@dataclass(frozen=True)
class Errand:
    """What an agent is made for.

    Args:
      run: the run's id.
      plan: of the whole program; nodes that are elsewhere have no payload.
      nodes: those that are here.
      host: names this host among those of the run.
      folder: of the run.
      path, cwd, argv0: of the launcher.
      version: its release of lpml.
      membership: `None` = there are no other hosts.
    """

    run: str
    plan: Plan
    nodes: tuple[str, ...]
    host: str
    folder: str
    path: tuple[str, ...]
    cwd: str
    argv0: str
    version: str
    membership: Membership | None = None


def _check(errand: Errand) -> None:
    """Refuses a host that cannot take part."""
    host = socket.gethostname()
    if errand.version != version():
        raise LaunchError(
            f"{host} has lpml {version()} and the launcher {errand.version}; install the "
            "same release on every host"
        )
    if not RunFolder(errand.folder).logs.is_dir():
        raise LaunchError(
            f"{host} does not see the run folder {errand.folder}; give one on a disk that all "
            "hosts share, by --directory or LPML_RUNS"
        )


@final
class HostAgent:
    """Runs the nodes of one host. Its methods may be called from any thread."""

    def __init__(self, errand: Errand) -> None:
        _check(errand)
        self._sockets = rendezvous.make(f"{errand.run}-{errand.host[:6]}")
        rendezvous.mark_host(self._sockets)
        try:
            self._seats = Seats(self._sockets)
            self._part = Part(
                set(errand.nodes),
                self._seats,
                errand.host,
                errand.membership,
                errand.path,
                errand.cwd,
                errand.argv0,
            )
            folder = RunFolder(errand.folder)
            self._engine = ProcessLauncher(errand.plan, folder, self._sockets, self._part)
            self._relay: RelayServer | None = None
            if errand.membership is not None:
                self._relay = RelayServer(self._sockets, errand.membership.identity)
        except BaseException:
            rendezvous.remove(self._sockets)
            raise
        self._commands: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._trouble: BaseException | None = None  # what ended the thread
        self._thread = threading.Thread(target=self._serve, name="lpml-agent", daemon=True)
        self._thread.start()

    # For the launcher.

    def addresses(self) -> tuple[dict[str, str], str]:
        """Where the nodes here are reached, and where their processes have to come."""
        own = {name: self._engine.address(name) for name in self._part.nodes}
        return own, str(self._sockets / SOCKET)

    def now(self) -> float:
        """The time that events of this host are in."""
        return time.monotonic()

    def tell(self, addresses: Mapping[str, str]) -> None:
        """Where all nodes of the program are reached."""
        self._do(lambda: self._learn(addresses))

    def expect(self, addresses: Sequence[str], back: bool) -> None:
        """Whether these nodes, which do not answer, will be back on another host."""
        message = {"what": "expect", "addresses": list(addresses), "back": back}
        self._do(lambda: self._engine.announce(message))

    def _learn(self, addresses: Mapping[str, str]) -> None:
        before, self._part.addresses = self._part.addresses, addresses
        moved = {b: addresses[n] for n, b in before.items() if addresses.get(n, b) != b}
        if moved:
            self._engine.announce({"what": "moved", "moved": moved})

    def carry_out(self, decisions: Sequence[Decision]) -> None:
        """As of a launcher; returns at once, as do the next three."""
        self._do(lambda: self._engine.carry_out(list(decisions)))

    def order(self, order: CutOrder) -> None:
        """As of a launcher."""
        self._do(lambda: self._engine.order(order))

    def adopt(self, states: Mapping[str, str]) -> None:
        """As of a launcher."""
        self._do(lambda: self._engine.adopt(states))

    def replan(self, plan: Plan, nodes: Sequence[str]) -> dict[str, str]:
        """As of a launcher: `nodes` are here too from now on; says where they are reached.

        Raises:
          LaunchError: the machine refuses.
        """
        done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def change() -> None:
            self._part.nodes.update(nodes)
            try:
                self._engine.replan(plan)
                done.put(None)
            except Exception as error:
                self._part.nodes.difference_update(nodes)
                done.put(error)

        self._do(change)
        while True:
            with contextlib.suppress(queue.Empty):
                error = done.get(timeout=0.1)
                break
            if not self._thread.is_alive() and done.empty():
                raise LaunchError("the agent of this host has ended") from self._trouble
        if error is not None:
            raise error
        return self.addresses()[0]

    def refuse(self, key: str, attempt: int, why: str) -> None:
        """The process `key` of this attempt will never come."""
        self._seats.refuse(key, attempt, why)

    def events(self) -> list[Event]:
        """Waits until something has happened to a node here, for a while.

        Raises:
          LaunchError: nothing will, since the agent itself has failed.
        """
        found: list[Event] = []
        try:
            event = self._events.get(timeout=_PATIENCE)
            while event is not None:
                found.append(event)
                event = self._events.get_nowait()
        except queue.Empty:
            pass
        if self._trouble is not None and not found:
            why = f"{type(self._trouble).__name__}: {self._trouble}"
            raise LaunchError(f"the agent of this host failed: {why}") from self._trouble
        return found

    def reports(self, timeout: float) -> dict[str, Said]:
        """What each node here says of itself."""
        said = self._engine.reports(timeout)
        return {
            name: Said(
                said.get(name, NodeReport()),
                self._engine.pid(name),
                self._engine.peak_memory(name),
            )
            for name in list(self._part.nodes)
        }

    def stack(self, node: str, timeout: float) -> str:
        """As of a launcher."""
        return self._engine.stack(node, timeout)

    def close(self) -> None:
        """Ends every process here and leaves nothing. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._engine.wake()
        self._thread.join(10.0)
        self._events.put(None)
        if self._relay is not None:
            self._relay.close()
        rendezvous.remove(Path(self._sockets))

    # The thread that drives the engine.

    def _do(self, command: Callable[[], object]) -> None:
        self._commands.put(command)
        self._engine.wake()

    def _serve(self) -> None:
        engine = self._engine
        try:
            while not self._closed.is_set():
                for event in engine.poll(None):
                    self._events.put(event)
                while not self._commands.empty():
                    self._commands.get_nowait()()
        except BaseException as error:
            self._trouble = error
            raise
        finally:
            engine.close()
            self._events.put(None)  # whoever waits for events learns of it
