"""The process of a node, from the fork to the exit: its surroundings, and its launcher's voice."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from lpml import wire
from lpml.clock import set_process_scope
from lpml.context import Context
from lpml.ending import leave
from lpml.errors import ProgramStopped
from lpml.launchers import devices, output, pipes, stacks, system
from lpml.launchers.base import Event, NodeReport
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.host import Host
from lpml.launchers.local import Door
from lpml.launchers.specs import NodeSpec, ProcessSpec
from lpml.wire import places, relay, tls


def run_process(control_fd: int, spec_fd: int, listeners: list[int]) -> None:
    """The life of a node's process, from the fork to the exit. Never returns."""
    leave(run(control_fd, spec_fd, listeners))


def run(control_fd: int, spec_fd: int, listeners: list[int]) -> int:
    """The life of a node's process, up to its exit code."""
    try:
        with open(spec_fd, "rb") as file:
            spec: ProcessSpec = pickle.load(file)
        process = _Process(spec, socket.socket(fileno=control_fd), listeners)
        return process.main()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1


@final
class _Process:
    """The nodes of this process, and the socket to the launcher."""

    def __init__(self, spec: ProcessSpec, control: socket.socket, listeners: list[int]) -> None:
        self._control = control
        self._sending = threading.Lock()
        self._pid = os.getpid()
        self._over = False  # whoever made this process ends it
        _redirect(spec.nodes[0].log)
        _set_up(spec)
        self._stacks = open(spec.stacks, "ab", buffering=0)  # noqa: SIM115  # for the process's life
        faulthandler.register(system.stack_signal(), self._stacks, all_threads=True)
        sockets = [socket.socket(fileno=fd) for fd in listeners]
        each = len(sockets) // len(spec.nodes)  # those of other hosts come by the second
        self._hosts = {
            node.name: self._host(spec, node, *sockets[each * i : each * (i + 1)])
            for i, node in enumerate(spec.nodes)
        }
        for host in self._hosts.values():
            if len(self._hosts) > 1:
                log = next(node.log for node in spec.nodes if node.name == host.name)
                output.route(host.context, Path(log))

    def _host(
        self,
        spec: ProcessSpec,
        node: NodeSpec,
        listener: socket.socket,
        remote: socket.socket | None = None,
    ) -> Host:
        identity = spec.identity
        context = Context(
            node.name,
            node.group,
            node.index,
            program=spec.program,
            directory=Path(spec.folder),
            on_stop=lambda reason: self._report(
                Event("stop_program", node.name, time.monotonic(), reason)
            ),
            attempt=node.attempt,
        )

        def resolve(name: str) -> object:
            if name in self._hosts:
                return self._hosts[name].door.client(node.name)
            peer = spec.peers[name]
            return wire.connect(
                peer.address, peer.interface, node=name, caller=node.name, log=node.log
            )

        door = Door(node.interface, context, node.name, node.address)
        return Host(
            node.name,
            node.interface,
            node.payload,
            context,
            resolve,
            self._report,
            door,
            listener,
            node.state,
            remote=None if remote is None or identity is None else (remote, identity),
        )

    def main(self) -> int:
        self._send({"what": "here", "pid": self._pid})
        hosts = list(self._hosts.values())
        signal.signal(signal.SIGTERM, self._on_terminate)
        threading.Thread(target=self._listen, name="lpml-control", daemon=True).start()
        if len(hosts) == 1:
            system.name_process(hosts[0].name)
            set_process_scope(hosts[0].context)
            hosts[0].main()
        else:
            for host in hosts:
                threading.Thread(target=host.main, name=host.name, daemon=True).start()
        for host in hosts:
            host.wait_closed()
        for host in hosts:
            host.close()
            self._send_report(host)
        self._over = True
        return 1 if any(host.failed for host in hosts) else 0

    # To the launcher.

    def _report(self, event: Event) -> None:
        self._send({"what": "event", "event": asdict(event)})

    def _send_report(self, host: Host) -> None:
        self._send({"what": "report", "node": host.name, **_plain(host.report())})

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):  # nobody is left to tell
            pipes.send(self._control, message)

    # From the launcher.

    def _listen(self) -> None:
        while (received := pipes.receive(self._control)) is not None:
            message = received[0]
            what = message["what"]
            if what == "ask":
                self._hosts[message["node"]].stop()
            elif what == "close":
                self._close(self._hosts[message["node"]])
            elif what == "cut":
                self._hosts[message["order"]["node"]].order(CutOrder(**message["order"]))
            elif what == "moved":
                places.move(message["moved"])
            elif what == "expect":
                places.expect(message["addresses"], back=message["back"])
            elif what == "report":
                for host in self._hosts.values():
                    self._send_report(host)
            elif what == "stack":
                self._send({"what": "stack", "id": message["id"], "text": stacks.every_thread()})
        if not self._over:
            os._exit(1)  # without a launcher there is no program

    def _close(self, host: Host) -> None:
        if host.working_thread is not None:
            # It ignores the stop. Whoever waits for it must not; the deadline will end it.
            host.close()
        host.let_go()

    def _on_terminate(self, number: int, frame: object) -> None:
        del frame
        hosts = list(self._hosts.values())
        asked = all(host.context.should_stop for host in hosts)
        working = [host for host in hosts if host.working_thread is not None]
        if not asked or not working or os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for host in working:
            if host.working_thread not in (None, threading.get_ident()):
                stacks.interrupt(host.working_thread)
        if any(host.working_thread == threading.get_ident() for host in working):
            raise ProgramStopped("the program is stopping and the node took too long")


def _plain(report: NodeReport) -> dict[str, Any]:
    return {
        "calls": report.calls,
        "errors": report.errors,
        "metrics": dict(report.metrics),
        "progress": report.progress,
    }


def _redirect(log: str) -> None:
    """Standard input is empty; what is printed goes to the log, line by line."""
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(null)
    os.close(file)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = open(  # noqa: SIM115  # for the process's life
            fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    faulthandler.enable()


def _set_up(spec: ProcessSpec) -> None:
    """Makes this process what an interpreter started for the node would be."""
    before = dict(os.environ)
    if spec.host:
        places.set_host(spec.host)
        if spec.identity is not None:
            tls.join(spec.identity)
            relay.use(Path(spec.sockets))
        sys.path[:0] = [entry for entry in spec.path if entry not in sys.path]
    else:
        os.environ.clear()
        sys.path[:] = spec.path
    os.environ.update(spec.environment)
    sys.argv[:] = [spec.argv0]
    with contextlib.suppress(OSError):  # the folder was removed; the launcher lives with that too
        os.chdir(spec.cwd)
    random.seed()
    devices.apply(before, spec.threads)
