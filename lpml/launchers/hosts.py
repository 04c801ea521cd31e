"""An engine of several hosts: hands decisions to the agent of each, and hands on what they report.

What finds the room, starts processes and notices that a host is gone is a `cluster.Cluster`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import sys
import threading
import time
from abc import ABC
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lpml.errors import LaunchError
from lpml.launchers import rendezvous
from lpml.launchers.agent import Errand, Said
from lpml.launchers.base import AbstractLauncher, Event, NodeReport
from lpml.launchers.briefing import absolute_path
from lpml.launchers.clients import Clients
from lpml.launchers.cluster import AbstractAgent, Cluster, HostLost
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.decisions import Decision
from lpml.launchers.names import version
from lpml.launchers.part import Membership
from lpml.launchers.plan import NodePlan, Plan
from lpml.record.folder import RunFolder
from lpml.wire import places, tls


@final
@dataclass(eq=False)
class _Host:
    """A host of the run."""

    name: str
    agent: AbstractAgent
    seats: str = ""
    offset: float = 0.0
    """What is added to its time to get ours."""
    lost: bool = False


class HostsLauncher(AbstractLauncher, ABC):
    """The engine of several hosts.

    Args:
      cluster: what starts processes on them.
    """

    def __init__(self, plan: Plan, folder: RunFolder, sockets: Path, cluster: Cluster) -> None:
        self._plan = plan
        self._known = {node.name: node for node in plan.nodes}  # those that have left, too
        self._folder = folder
        self._cluster = cluster
        self._queue: queue.SimpleQueue[Event | _Host | None] = queue.SimpleQueue()
        self._hosts: dict[str, _Host] = {}
        self._host_of: dict[str, str] = {}  # {process: host}
        self._addresses: dict[str, str] = {}
        self._said: dict[str, Said] = {}
        self._states: Mapping[str, str] = {}
        self._clients = Clients(self.address, folder)
        self._closed = False
        self._member: Membership | None = None
        try:
            places.set_host(cluster.here)
            self._member = cluster.join(cluster.here)
            if self._member is not None:
                tls.join(self._member.identity)
            for node in plan.nodes:
                folder.log_file(node.name).touch()
            self._host_of = cluster.place(plan.nodes)
            self._open(set(self._host_of.values()))
        except BaseException:
            self.close()
            raise

    def now(self) -> float:
        return time.monotonic()

    # Hosts.

    def _open(self, names: Iterable[str]) -> None:
        """Starts the agents of hosts, and tells all where everybody is."""
        new = []
        for name in names:
            new.append(_Host(name, self._cluster.start_agent(self._errand(name))))
        for host in new:
            self._hosts[host.name] = host
            try:
                addresses, host.seats = host.agent.ask("addresses", timeout=120.0)
                before = self.now()
                theirs = host.agent.ask("now")
            except (HostLost, TimeoutError) as error:
                raise LaunchError(f"host {host.name} could not be made ready: {error}") from error
            host.offset = (before + self.now()) / 2 - theirs
            self._learn(addresses)
            if self._states:
                host.agent.tell("adopt", self._states)
        self._tell_addresses()
        for host in new:
            thread = threading.Thread(
                target=self._hear, args=(host,), name="lpml-host", daemon=True
            )
            thread.start()

    def _tell_addresses(self) -> None:
        for host in self._alive():
            host.agent.tell("tell", dict(self._addresses))

    def _learn(self, addresses: Mapping[str, str]) -> None:
        """Where nodes are that may have been elsewhere."""
        known = self._addresses
        places.move({known[n]: new for n, new in addresses.items() if known.get(n, new) != new})
        self._addresses.update(addresses)

    def _expect(self, nodes: Iterable[str], *, back: bool) -> None:
        """Callers are told whether it is worth waiting for nodes whose host was lost."""
        addresses = [self._addresses[node] for node in nodes if node in self._addresses]
        places.expect(addresses, back=back)
        for host in self._alive():
            host.agent.tell("expect", addresses, back)

    def _errand(self, host: str) -> Errand:
        nodes = self._nodes_on(host)
        return Errand(
            run=self._folder.name,
            plan=self._plan_for(host),
            nodes=tuple(node.name for node in nodes),
            host=host,
            folder=str(self._folder.path),
            path=absolute_path(),
            cwd=os.getcwd(),
            argv0=sys.argv[0] if sys.argv else "",
            version=version(),
            membership=self._cluster.join(host),
        )

    def _plan_for(self, host: str) -> Plan:
        """The program as a host sees it: what runs elsewhere is not carried there."""
        here = {node.name for node in self._nodes_on(host)}
        nodes = tuple(
            node if node.name in here else dataclasses.replace(node, payload=b"")
            for node in self._plan.nodes
        )
        return dataclasses.replace(self._plan, nodes=nodes)

    def _nodes_on(self, host: str) -> list[NodePlan]:
        return [node for node in self._plan.nodes if self._host_of.get(node.process) == host]

    def _alive(self) -> list[_Host]:
        return [host for host in self._hosts.values() if not host.lost]

    def _host(self, node: str) -> _Host | None:
        process = self._process_of(node)
        host = self._hosts.get(self._host_of.get(process, ""))
        return None if host is None or host.lost else host

    def _process_of(self, node: str) -> str:
        return self._known[node].process

    def _hear(self, host: _Host) -> None:
        """The thread of a host: what happens there."""
        while not self._closed:
            try:
                events = host.agent.ask("events", timeout=60.0)
            except TimeoutError:
                continue
            except Exception:
                self._queue.put(host)
                return
            for event in events:
                self._queue.put(dataclasses.replace(event, at=event.at + host.offset))

    # Decisions.

    def carry_out(self, decisions: list[Decision]) -> None:
        parts: dict[str, list[Decision]] = defaultdict(list)
        started: dict[str, Decision] = {}
        for decision in decisions:
            host = self._host(decision.node)
            if decision.what == "start":
                started.setdefault(self._process_of(decision.node), decision)
            if host is not None:
                parts[host.name].append(decision)
            elif decision.what in ("kill", "end", "terminate", "close", "ask"):
                self._gone(decision.node, "its host was lost")
        ended = [d.node for d in decisions if d.what in ("close", "give_up")]
        if ended:
            self._expect(ended, back=False)
        for name, those in parts.items():
            self._hosts[name].agent.tell("carry_out", those)
        for decision in decisions:
            if decision.what in ("kill", "end"):
                self._cluster.end(self._process_of(decision.node))
        for process, decision in started.items():
            host = self._host(decision.node)
            if host is not None:
                self._start(process, decision.attempt, host)
            else:
                attempts = {d.node: d for d in decisions if d.what == "start"}
                threading.Thread(
                    target=self._move, args=(process, attempts), name="lpml-move", daemon=True
                ).start()

    def _start(self, process: str, attempt: int, host: _Host) -> None:
        def ended(why: str) -> None:
            host.agent.tell("refuse", process, attempt, why)

        self._cluster.end(process)  # what is left of the attempt before
        self._cluster.start(process, attempt, host.seats, ended)

    def _move(self, process: str, decisions: Mapping[str, Decision]) -> None:
        """Starts a process on another host than before."""
        nodes = [node.name for node in self._plan.nodes if node.process == process]
        try:
            name = self._cluster.place_again(process, self._host_of[process])
            self._host_of[process] = name
            if name in self._hosts and not self._hosts[name].lost:
                agent = self._hosts[name].agent
                self._learn(agent.ask("replan", self._plan_for(name), nodes))
                self._tell_addresses()
            else:
                self._open([name])
        except (LaunchError, HostLost, TimeoutError) as error:
            self._expect(nodes, back=False)
            for node in nodes:
                self._gone(node, f"no other host could take it: {error}")
            return
        host = self._hosts[name]
        host.agent.tell("carry_out", [decisions[node] for node in nodes if node in decisions])
        self._start(process, decisions[nodes[0]].attempt, host)

    def _gone(self, node: str, how: str) -> None:
        self._queue.put(Event("exited", node, self.now(), how, clean=False))

    def replan(self, plan: Plan) -> None:
        known = {node.name for node in self._plan.nodes}
        new = [node for node in plan.nodes if node.name not in known]
        for node in new:
            self._folder.log_file(node.name).touch()
        placed = self._cluster.place(new) if new else {}
        before = self._plan
        self._host_of.update(placed)
        self._plan = plan
        self._known.update({node.name: node for node in plan.nodes})
        try:
            for name in set(placed.values()):
                nodes = [n.name for n in new if placed[n.process] == name]
                host = self._hosts.get(name)
                if host is None or host.lost:
                    self._open([name])
                    continue
                self._learn(host.agent.ask("replan", self._plan_for(name), nodes))
            others = [h for h in self._alive() if h.name not in placed.values()]
            for host in others:
                host.agent.tell("replan", self._plan_for(host.name), [])
            self._tell_addresses()
        except BaseException as error:
            self._plan = before
            for process in placed:
                self._cluster.give_back(process)
                self._host_of.pop(process, None)
            if isinstance(error, (HostLost, TimeoutError)):
                raise LaunchError(f"a host could not take a new node: {error}") from error
            raise

    def order(self, order: CutOrder) -> None:
        host = self._host(order.node)
        if host is not None:
            host.agent.tell("order", order)

    def adopt(self, states: Mapping[str, str]) -> None:
        self._states = dict(states)
        for host in self._alive():
            host.agent.tell("adopt", self._states)

    # Events.

    def poll(self, timeout: float | None) -> list[Event]:
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            found = self._queue.get(timeout=None if timeout is None else max(0.0, timeout))
            while True:
                if isinstance(found, _Host):
                    events += self._lose(found)
                elif found is not None:
                    events.append(found)
                found = self._queue.get_nowait()
        for event in events:
            if event.what == "exited":
                process = self._process_of(event.node)
                self._cluster.end(process)
                if all(node.process != process for node in self._plan.nodes):  # it has left
                    self._cluster.give_back(process)
        return events

    def _lose(self, host: _Host) -> list[Event]:
        if self._closed or host.lost:
            return []
        host.lost = True
        host.agent.close()
        how = "its host was lost"
        nodes = self._nodes_on(host.name)
        for node in nodes:
            self._cluster.end(node.process)
        self._expect([n.name for n in nodes if self._plan.may_return(n)], back=True)
        return [Event("exited", n.name, self.now(), how, clean=False) for n in nodes]

    def close(self) -> None:
        self._closed = True
        for host in self._alive():
            with contextlib.suppress(Exception):
                host.agent.ask("close", timeout=15.0)
        for host in self._hosts.values():
            host.agent.close()
        self._clients.close()
        if self._member is not None:
            tls.leave(self._member.identity)
        rendezvous.sweep()  # of agents that were killed here
        self._cluster.close()

    # From any thread.

    def wake(self) -> None:
        self._queue.put(None)

    def address(self, node: str) -> str:
        return self._addresses.get(node, "")

    def client(self, node: str) -> Any:
        return self._clients.get(node, self._known[node].interface)

    def reports(self, timeout: float) -> Mapping[str, NodeReport]:
        if not self._closed:
            for host in self._alive():
                with contextlib.suppress(HostLost, TimeoutError):
                    said = host.agent.ask("reports", timeout, timeout=timeout + 1.0)
                    self._said = {**self._said, **said}  # whole or not at all, for other threads
        return {node: said.report for node, said in self._said.items()}

    def pid(self, node: str) -> int:
        said = self._said.get(node)
        return 0 if said is None else said.pid

    def peak_memory(self, node: str) -> int:
        said = self._said.get(node)
        return 0 if said is None else said.peak_memory

    def stack(self, node: str, timeout: float) -> str:
        host = self._host(node)
        if host is None:
            return f"{node} is on no host"
        try:
            return str(host.agent.ask("stack", node, timeout, timeout=timeout + 5.0))
        except (HostLost, TimeoutError) as error:
            return f"the host of {node} does not answer: {error}"
