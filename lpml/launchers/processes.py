"""Every node a process of this machine, forked from a warm server."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from lpml.launchers import devices, exits, system
from lpml.launchers.base import AbstractLauncher, Event, NodeReport
from lpml.launchers.briefing import MARK, brief
from lpml.launchers.clients import Clients
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.decisions import Decision
from lpml.launchers.listeners import Listeners
from lpml.launchers.part import Part, Starter
from lpml.launchers.plan import NodePlan, Plan
from lpml.launchers.preloading import needed
from lpml.launchers.process import NodeProcess
from lpml.launchers.questions import Questions
from lpml.launchers.server_process import take
from lpml.launchers.server_process import warm as warm
from lpml.record.folder import RunFolder, disk_error
from lpml.wire.waker import Waker

_AT_ONCE = 32  # forks under way; descriptors that nobody has received yet count against a limit


@final
class ProcessLauncher(AbstractLauncher):
    """The engine of `local_mp`, and of one host of an engine of several.

    Args:
      part: which nodes are here, and how they are started; `None` = all, forked.
    """

    def __init__(
        self, plan: Plan, folder: RunFolder, sockets: Path, part: Part | None = None
    ) -> None:
        self._plan = plan
        self._part = part
        self._folder = folder
        self._sockets = sockets
        self._questions = Questions()
        self._waiting: deque[NodeProcess] = deque()  # to be forked
        self._flying = 0
        self._orphaned = ""  # how the forkserver died: nothing can be started any more
        self._machine = devices.Machine.find()
        self._oom_before = system.oom_kills()
        self._states: dict[str, str] = {}  # {node: where its state is}
        self._pending: list[Event] = []
        self._clients = Clients(self.address, folder)
        self._interfaces = {node.name: node.interface for node in plan.nodes}
        self._processes: dict[str, NodeProcess] = {}  # by key; the last attempt
        self._of: dict[str, NodeProcess] = {}  # {node: its process}
        member = None if part is None else part.membership
        self._listeners = (
            Listeners(sockets)
            if part is None or member is None
            else Listeners(sockets, part.host, member)
        )
        system.allow_descriptors(256 + 4 * len(plan.nodes))
        self._server: Starter = (
            take(needed([node.payload for node in plan.nodes])) if part is None else part.starter
        )
        try:
            self._prepare()
        except OSError as error:
            self._give_back()
            raise disk_error(folder.logs, error) from error
        except BaseException:
            self._give_back()
            raise
        self._waker = Waker()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._selector.register(self._server.socket, selectors.EVENT_READ)
        self._server.send({"what": "sockets", "folder": str(sockets)})

    def _prepare(self) -> None:
        here = [node for node in self._plan.nodes if self._is_here(node)]
        for node in here:
            process = self._processes.setdefault(node.process, NodeProcess(node.process, []))
            process.nodes.append(node)
            self._of[node.name] = process
        for node in here:
            self._prepare_node(node)

    def _is_here(self, node: NodePlan) -> bool:
        return self._part is None or node.name in self._part.nodes

    def _prepare_node(self, node: NodePlan) -> None:
        self._folder.log_file(node.name).touch()
        self._listeners.listen(node.name)

    def replan(self, plan: Plan) -> None:
        known = {node.name for node in self._plan.nodes}.intersection(self._of)
        system.allow_descriptors(256 + 4 * len(plan.nodes))
        new = [node for node in plan.nodes if node.name not in known and self._is_here(node)]
        try:
            for node in new:
                self._interfaces[node.name] = node.interface
                self._prepare_node(node)
        except OSError as error:
            self._listeners.close(node.name for node in new)
            raise disk_error(self._folder.logs, error) from error
        for node in new:
            process = NodeProcess(node.process, [node])
            self._processes[node.process] = self._of[node.name] = process
        self._plan = plan

    def _give_back(self) -> None:
        self._listeners.close_all()
        self._server.discard()

    def now(self) -> float:
        return time.monotonic()

    # Decisions.

    def carry_out(self, decisions: list[Decision]) -> None:
        killed: set[str] = set()
        for decision in decisions:
            process = self._of[decision.node]
            if decision.what == "start":
                self._start(process, decision)
            elif decision.what == "give_up":
                self._listeners.close([decision.node])
            elif decision.what in ("ask", "close", "retire"):
                self._say(process, decision)
            elif decision.what == "inspect":
                threading.Thread(
                    target=self._inspect, args=(decision.node,), name="lpml-inspect", daemon=True
                ).start()
            elif process.key not in killed:
                killed.add(process.key)
                self._end(process, kill=decision.what != "terminate")
        self._fork_some()

    def _start(self, process: NodeProcess, decision: Decision) -> None:
        if process.exited:
            process = NodeProcess(process.key, process.nodes)
            self._processes[process.key] = process
            self._of.update({node.name: process for node in process.nodes})
        if decision.afresh:
            self._listeners.listen(decision.node)
        process.attempts[decision.node] = decision.attempt
        if process not in self._waiting:
            self._waiting.append(process)

    def _say(self, process: NodeProcess, decision: Decision) -> None:
        if decision.what == "ask":  # one that is stopped by a signal would never hear of it
            self._signal(process, signal.SIGCONT)
        if decision.what == "close":
            self._listeners.close([decision.node])
        what = "ask" if decision.what == "ask" else "close"
        process.tell({"what": what, "node": decision.node})

    def _end(self, process: NodeProcess, *, kill: bool) -> None:
        if process in self._waiting:  # it was never forked
            self._waiting.remove(process)
            self._forget(process, "", clean=True, at=self.now())
            self.wake()
        elif kill:
            # A server that was stopped can still be told; one that is gone takes its nodes along.
            self._server.rouse()
            self._signal(process, signal.SIGKILL)
        else:
            self._signal(process, signal.SIGTERM, signal.SIGCONT)

    def _signal(self, process: NodeProcess, *numbers: int) -> None:
        if process.forked and not process.exited:
            numbers = tuple(map(int, numbers))
            self._server.send({"what": "signal", "key": process.key, "numbers": numbers})

    def _fork_some(self) -> None:
        while self._orphaned and self._waiting:  # its restart was due after the server's death
            process = self._waiting.popleft()
            self._forget(process, self._orphaned, clean=False, at=self.now())
            self.wake()
        while self._waiting and self._flying < _AT_ONCE:
            self._fork(self._waiting.popleft())

    def _fork(self, process: NodeProcess) -> None:
        told = brief(
            process,
            self._plan,
            self._folder,
            self._part,
            sockets=self._sockets,
            stacks=self._stack_file(process),
            states=self._states,
            address=self.address,
            interfaces=self._interfaces,
        )
        spec = system.memory_file("lpml-spec", pickle.dumps(told, protocol=5))
        ours, theirs = socket.socketpair()
        listeners = [fd for node in process.nodes for fd in self._listeners.descriptors(node.name)]
        attempt = max(process.attempts.values())
        message = {"what": "fork", "key": process.key, "attempt": attempt}
        self._server.send(message, [theirs.fileno(), spec, *listeners])
        os.close(spec)
        theirs.close()
        # Where an attempt may follow, we keep the socket: callers wait in its backlog meanwhile.
        self._listeners.close(n.name for n in process.nodes if not self._plan.may_return(n))
        self._flying += 1
        process.connect(ours)
        self._selector.register(ours, selectors.EVENT_READ, process)

    def _stack_file(self, process: NodeProcess) -> Path:
        return self._listeners.path(process.nodes[0].name, ".stacks")

    def order(self, order: CutOrder) -> None:
        self._of[order.node].tell({"what": "cut", "order": asdict(order)})

    def announce(self, message: dict[str, Any]) -> None:
        """Tells every process that there is."""
        for process in self._processes.values():
            if process.forked and not process.exited:
                process.tell(message)

    def adopt(self, states: Mapping[str, str]) -> None:
        self._states = dict(states)

    def _inspect(self, node: str) -> None:
        stack = self.stack(node, timeout=1.5)
        self._pending.append(Event("overdue", node, self.now(), traceback=stack))
        self.wake()

    # Events.

    def poll(self, timeout: float | None) -> list[Event]:
        events: list[Event] = []
        for key, _ in self._selector.select(None if timeout is None else max(0.0, timeout)):
            if key.fileobj is self._waker:
                self._waker.clear()
            elif key.fileobj is self._server.socket:
                events += self._hear_server()
            else:
                events += self._hear(key.data)
        while self._pending:
            events.append(self._pending.pop(0))
        self._fork_some()
        return events

    def _hear_server(self) -> list[Event]:
        events: list[Event] = []
        for message in self._server.inbox.read():
            process = self._processes[message["key"]]
            if message["what"] == "forked":
                process.pid = message["pid"]
                self._flying -= 1
                now = self.now()
                events += [Event("begun", node.name, now) for node in process.nodes]
            elif message["what"] == "refused":
                self._flying -= 1
                how = f"no process could be started: {message['why']}"
                events += self._forget(process, how, clean=False, at=self.now())
            elif message["what"] == "exited":
                process.peak = message["peak"]
                how, clean = self._judge(process, message["code"])
                events += self._forget(process, how, clean=clean, at=message["at"])
        if self._server.inbox.ended:
            events += self._server_died()
        return events

    def _judge(self, process: NodeProcess, code: int | None) -> tuple[str, bool]:
        oom = system.oom_kills() > self._oom_before
        how = exits.decode(code, peak=process.peak, machine=self._machine.memory, oom=oom)
        return ("", True) if code == 0 else (how, False)

    def _server_died(self) -> list[Event]:
        self._selector.unregister(self._server.socket)
        events = []
        how = f"the forkserver, parent of every node, died; {self._server.last_words}".rstrip("; ")
        self._orphaned = how
        for process in self._processes.values():
            if process.exited:
                continue
            if process.pid:  # the kernel kills it with its parent; elsewhere than on Linux we do
                system.kill(process.pid, signal.SIGKILL)
            events += self._forget(process, how, clean=False, at=self.now())
        self._waiting.clear()
        return events

    def _forget(self, process: NodeProcess, how: str, *, clean: bool, at: float) -> list[Event]:
        """What a process still had to say, and then its end."""
        if process.exited:
            return []
        events = self._hear(process)
        process.exited = True
        self._drop(process)
        # Another host can take over what ours cannot start; alone, there is nobody.
        hopeless = bool(self._orphaned) and self._part is None
        ends = [
            Event("exited", node.name, at, text=how, clean=clean, hopeless=hopeless)
            for node in process.nodes
        ]
        if not process.forked:
            self._pending += ends
            return events
        return events + ends

    def _hear(self, process: NodeProcess) -> list[Event]:
        inbox = process.inbox
        if inbox is None:
            return []
        events = []
        for message in inbox.read():
            if message["what"] == "event":
                events.append(Event(**message["event"]))
            elif message["what"] == "here":  # may come before its parent has said so
                process.pid = message["pid"]
            else:
                self._questions.answer(process, message)
        if inbox.ended:
            self._drop(process)
        return events

    def _drop(self, process: NodeProcess) -> None:
        control = process.disconnect()
        self._questions.gone(process)
        if control is not None:
            self._selector.unregister(control)
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()

    def close(self) -> None:
        for process in self._processes.values():
            self._drop(process)
        self._listeners.close_all()
        if not self._server.close():
            ours = [process.pid for process in self._processes.values() if process.pid]
            system.end_leftovers(f"{MARK}={self._sockets}", ours)
        self._waker.close()
        self._clients.close()
        self._selector.close()

    # From any thread.

    def wake(self) -> None:
        self._waker.wake()

    def address(self, node: str) -> str:
        if self._part is None or node in self._part.nodes:
            return self._listeners.address(node)
        return self._part.addresses.get(node, "")

    def client(self, node: str) -> Any:
        return self._clients.get(node, self._interfaces[node])

    def reports(self, timeout: float) -> Mapping[str, NodeReport]:
        return self._questions.reports(list(self._processes.values()), timeout)

    def pid(self, node: str) -> int:
        return self._of[node].pid

    def peak_memory(self, node: str) -> int:
        return self._of[node].peak_memory

    def stack(self, node: str, timeout: float) -> str:
        process = self._of[node]
        if process.control is None:
            return f"{node} has no process{' any more' if process.exited else ' yet'}"
        return self._questions.stack(
            process,
            self._stack_file(process),
            lambda number: self._signal(process, number),
            timeout,
        )
