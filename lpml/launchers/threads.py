"""Every node a thread of this process: for debugging, notebooks, tests, any operating system.

Each node still gets its own copy of its arguments, its own context and its own log, so a program
that runs here runs on processes too. A thread cannot be killed: what ignores the stop is
interrupted at its next bytecode, and given up at the deadline. A node that is restarted is a new
object in a new thread, behind the same door.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lpml.clock import wake_all
from lpml.context import Context
from lpml.errors import ProgramStopped
from lpml.launchers import output, stacks
from lpml.launchers.base import AbstractLauncher, Event, NodeReport
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.decisions import Decision
from lpml.launchers.host import Host
from lpml.launchers.local import Door
from lpml.launchers.plan import NodePlan, Plan
from lpml.record.folder import RunFolder, disk_error


@final
class ThreadLauncher(AbstractLauncher):
    """The engine of `local_mt` and `test`."""

    def __init__(self, plan: Plan, folder: RunFolder, sockets: Path) -> None:
        del sockets  # calls are direct
        self._plan = plan
        self._folder = folder
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._nodes = {node.name: node for node in plan.nodes}
        self._hosts: dict[str, Host] = {}  # the attempt that goes on, or is to come
        self._threads: dict[str, threading.Thread] = {}
        self._states: dict[str, str] = {}  # {node: where its state is}
        for node in plan.nodes:
            self._hosts[node.name] = self._first_host(node)
        try:
            for name, host in self._hosts.items():
                output.route(host.context, folder.log_file(name))
        except OSError as error:
            self.close()
            raise disk_error(folder.logs, error) from error

    def _first_host(self, node: NodePlan) -> Host:
        context = self._context(node, 0)
        door = Door(node.interface, context, node.name, reopens=self._plan.may_return(node))
        return self._host(node, context, door)

    def replan(self, plan: Plan) -> None:
        new = [node for node in plan.nodes if node.name not in {n.name for n in self._plan.nodes}]
        self._plan = plan
        for node in new:
            self._nodes[node.name] = node
            self._hosts[node.name] = self._first_host(node)

    def _context(self, node: NodePlan, attempt: int) -> Context:
        return Context(
            node.name,
            node.group,
            node.index,
            program=self._plan.program,
            directory=self._folder.path,
            on_stop=lambda reason: self._events.put(
                Event("stop_program", node.name, self.now(), reason)
            ),
            attempt=attempt,
        )

    def _host(self, node: NodePlan, context: Context, door: Door) -> Host:
        return Host(
            node.name,
            node.interface,
            node.payload,
            context,
            lambda name: self._hosts[name].door.client(node.name),
            self._events.put,
            door,
        )

    def _succeed(self, host: Host) -> None:
        """Prepares the next attempt; what still waits in the last one learns that it is over."""
        if not host.door.reopens or self._hosts[host.name] is not host:
            return
        context = self._context(self._nodes[host.name], host.context.attempt + 1)
        host.door.renew(context)
        self._hosts[host.name] = self._host(self._nodes[host.name], context, host.door)
        host.stop()

    def now(self) -> float:
        return time.monotonic()

    def carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            host = self._hosts[decision.node]
            if decision.what == "start":
                self._start(host, decision.attempt)
            elif decision.what == "ask":
                host.stop()
            elif decision.what == "close":
                host.door.give_up()
                host.let_go()
                if host.working_thread is not None:
                    host.close()
            elif decision.what == "retire":
                host.let_go()
            elif decision.what == "end":
                self._succeed(host)
                host.close()
                stacks.interrupt(host.working_thread)
                wake_all()  # it may wait at the door of another node that ends, too
            elif decision.what == "give_up":
                host.door.give_up()
            elif decision.what == "terminate":
                stacks.interrupt(host.working_thread)
            elif decision.what == "kill":
                host.door.give_up()
                host.close()
                why = "does not return, and a thread cannot be killed"
                self._events.put(Event("abandoned", decision.node, self.now(), why))
            elif decision.what == "inspect":
                stack = stacks.one_thread(host.working_thread)
                self._events.put(Event("overdue", decision.node, self.now(), traceback=stack))

    def order(self, order: CutOrder) -> None:
        if order.node in self._threads:
            self._hosts[order.node].order(order)

    def adopt(self, states: Mapping[str, str]) -> None:
        self._states = dict(states)

    def _start(self, host: Host, attempt: int) -> None:
        host.context.attempt = attempt
        if attempt:  # those who were interrupted have ended by now
            host.door.dispatcher.free_turn()
        host.state = self._states.get(host.name, "")
        with contextlib.suppress(OSError):  # a full disk; what it prints is then shown as it is
            output.route(host.context, self._folder.log_file(host.name))
        thread = threading.Thread(target=self._live, args=(host,), name=host.name, daemon=True)
        self._threads[host.name] = thread
        thread.start()
        self._events.put(Event("begun", host.name, self.now()))

    def _live(self, host: Host) -> None:
        # An interrupt may come late, when the work is already done: it is nobody's failure.
        for step in (host.main, host.wait_closed, host.close):
            with contextlib.suppress(ProgramStopped):
                step()
        host.close()
        if not host.context.should_stop:
            self._succeed(host)
        output.unroute(host.context)
        self._events.put(Event("exited", host.name, self.now()))

    def poll(self, timeout: float | None) -> list[Event]:
        events = []
        with contextlib.suppress(queue.Empty):
            first = self._events.get(timeout=timeout)
            events = [first] if first is not None else []
            while True:
                event = self._events.get_nowait()
                if event is not None:
                    events.append(event)
        return events

    def close(self) -> None:
        for host in self._hosts.values():
            host.door.give_up()
            host.close()
            output.unroute(host.context)
        for thread in self._threads.values():
            thread.join(0.1)

    def wake(self) -> None:
        self._events.put(None)

    def address(self, node: str) -> str:
        del node
        return ""

    def client(self, node: str) -> Any:
        return self._hosts[node].door.client("launcher")

    def reports(self, timeout: float) -> Mapping[str, NodeReport]:
        del timeout
        return {name: host.report() for name, host in self._hosts.items()}

    def pid(self, node: str) -> int:
        return os.getpid() if node in self._threads else 0

    def peak_memory(self, node: str) -> int:
        del node
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def stack(self, node: str, timeout: float) -> str:
        del timeout
        thread = self._threads.get(node)
        return "" if thread is None else stacks.one_thread(thread.ident)

    def service(self, node: str) -> object:
        return self._hosts[node].door.service
