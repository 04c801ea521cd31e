"""The engine of several hosts, on a cluster of plain subprocesses: agents, seats, lost hosts.

`tests/cluster` runs the same engine on Ray.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml.launchers import Run, names
from lpml.launchers.agent import Errand, HostAgent
from lpml.launchers.cluster import AbstractAgent, Cluster, HostLost
from lpml.launchers.hosts import HostsLauncher
from lpml.launchers.part import Membership
from lpml.launchers.plan import NodePlan, Plan
from lpml.record.folder import RunFolder
from lpml.wire import shared
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
OCCUPY = """
import sys
from lpml.launchers.seats import occupy
sys.exit(occupy(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


class NearAgent(AbstractAgent):
    """An agent in this process, until it is lost."""

    def __init__(self, errand: Errand) -> None:
        self.agent = HostAgent(errand)
        self.lost = False

    def tell(self, method: str, *args: Any) -> None:
        if not self.lost:
            getattr(self.agent, method)(*args)

    def ask(self, method: str, *args: Any, timeout: float = 30.0) -> Any:
        if self.lost:
            raise HostLost("it was lost")
        answer = getattr(self.agent, method)(*args)
        if self.lost and method == "events":
            raise HostLost("it was lost")
        return answer

    def close(self) -> None:
        self.agent.close()


class Subprocesses(Cluster):
    """Hosts `a` and `b`, which are both this machine; processes alternate between them."""

    last: Subprocesses

    def __init__(self) -> None:
        self.here = "a"
        self.agents: dict[str, NearAgent] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._placed = 0
        Subprocesses.last = self

    def place(self, nodes: Iterable[NodePlan]) -> dict[str, str]:
        placed = {}
        for process in dict.fromkeys(node.process for node in nodes):
            placed[process] = "ab"[self._placed % 2]
            self._placed += 1
        return placed

    def place_again(self, process: str, lost: str) -> str:
        return "b" if lost == "a" else "a"

    def join(self, host: str) -> Membership | None:
        return None

    def start_agent(self, errand: Errand) -> AbstractAgent:
        agent = self.agents[errand.host] = NearAgent(errand)
        return agent

    def start(self, process: str, attempt: int, path: str, ended: Callable[[str], None]) -> None:
        command = [sys.executable, "-c", OCCUPY, path, process, str(attempt)]
        made = self._processes[process] = subprocess.Popen(command, cwd=ROOT)

        def wait() -> None:
            ended(f"exit status {made.wait()}")

        threading.Thread(target=wait, daemon=True).start()

    def end(self, process: str) -> None:
        made = self._processes.pop(process, None)
        if made is not None:
            made.kill()
            made.wait()

    def give_back(self, process: str) -> None:
        self.end(process)

    def close(self) -> None:
        for process in list(self._processes):
            self.end(process)

    def lose(self, host: str) -> None:
        """The host is gone, with all that ran there."""
        agent = self.agents[host]
        agent.lost = True
        agent.agent.close()


class Members(Subprocesses):
    """Hosts that call each other over TLS, as those of a real cluster do."""

    def __init__(self) -> None:
        super().__init__()
        from lpml.wire.authority import Authority

        self._authority = Authority("test")

    def join(self, host: str) -> Membership:
        return Membership(self._authority.issue(host), "127.0.0.1")


class Launcher(HostsLauncher):
    """On the subprocesses."""

    cluster: type[Subprocesses] = Subprocesses

    def __init__(self, plan: Plan, folder: RunFolder, sockets: Path) -> None:
        super().__init__(plan, folder, sockets, self.cluster())


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts are members of a run."""
    pytest.importorskip("cryptography", reason="needs the extra ray")
    monkeypatch.setattr(Launcher, "cluster", Members)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Launches a program on the hosts; the run folder is kept for the test."""
    monkeypatch.setattr(names, "LAUNCHERS", {**names.LAUNCHERS, "hosts": f"{__name__}:Launcher"})
    monkeypatch.setattr("lpml.launchers.base.LAUNCHERS", names.LAUNCHERS)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Launcher.__module__])
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 30.0}
    return lambda program, **changes: lpml.launch(program, "hosts", **{**options, **changes})


class Store:
    """Holds a count."""

    def __init__(self, count: int = 0) -> None:
        self._count = count

    def add(self) -> int:
        self._count += 1
        return self._count

    @lpml.idempotent
    def pid(self) -> int:
        return os.getpid()


class Reader:
    """Asks a store of another host."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @lpml.idempotent
    def pid_of_store(self) -> int:
        return self._store.pid()


class Worker:
    """Runs until it is stopped."""

    def run(self) -> None:
        lpml.context().log({"index": lpml.context().index})
        print("here", lpml.context().index)
        while not lpml.context().wait(60.0):
            pass


def pair(restart: lpml.Restart | None = None) -> lpml.Program:
    """A store on one host and a reader on the other."""
    program = lpml.Program("pair")
    with program.group("all", restart=restart):
        store = program.add_node(lpml.Node(Store, 10), label="store")
        program.add_node(lpml.Node(Reader, store), label="reader")
    return program


def test_nodes_of_two_hosts_call_each_other_and_end(start: Callable[..., Run]) -> None:
    with start(pair()) as run:
        assert run.client("store/0").add() == 11
        assert run.client("reader/0").pid_of_store() == run.client("store/0").pid()
        assert {node.pid for node in run.status().nodes} != {0}
        assert "lpml" in run.stack("store/0")
    assert run.wait().state == "stopped"


def test_a_killed_node_is_restarted_on_its_host(start: Callable[..., Run]) -> None:
    with start(pair(lpml.Restart.on_failure(backoff=0.02))) as run:
        reader = run.client("reader/0")
        before = reader.pid_of_store()
        os.kill(before, signal.SIGKILL)
        with lpml.deadline(60.0):
            assert reader.pid_of_store() != before
        assert run.client("store/0").add() == 11  # a new object


def test_a_killed_node_that_may_not_come_back_fails_the_run(start: Callable[..., Run]) -> None:
    run = start(pair())
    os.kill(run.client("store/0").pid(), signal.SIGKILL)
    with pytest.raises(lpml.NodeError, match="store/0 failed: was killed or crashed"):
        run.wait(60.0)


def test_nodes_of_a_lost_host_go_on_on_another(start: Callable[..., Run]) -> None:
    with start(pair(lpml.Restart.on_failure(backoff=0.02))) as run:
        store, reader = run.client("store/0"), run.client("reader/0")
        before = store.pid()
        assert store.add() == 11
        Subprocesses.last.lose("a")
        assert until(lambda: run.status().nodes[0].restarts == 1)
        with lpml.deadline(60.0):
            assert store.pid() != before
            assert reader.pid_of_store() == store.pid()
            assert store.add() == 11


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_host_whose_agent_fails_is_a_lost_host(start: Callable[..., Run]) -> None:
    def fail() -> None:
        raise RuntimeError("a fault of the agent")

    with start(pair(lpml.Restart.on_failure(backoff=0.02))) as run:
        store = run.client("store/0")
        before = store.pid()
        agent = Subprocesses.last.agents["a"].agent
        agent._do(fail)
        assert until(lambda: run.status().nodes[0].restarts == 1)
        with lpml.deadline(60.0):
            assert store.pid() != before
        with pytest.raises(lpml.LaunchError, match="the agent of this host has ended"):
            agent.replan(run.plan, [])
        with pytest.raises(lpml.LaunchError, match="failed: RuntimeError: a fault of the agent"):
            agent.events()


def test_groups_grow_and_shrink_over_hosts(start: Callable[..., Run]) -> None:
    program = lpml.Program("workers")
    program.add_node(lpml.Node(Worker), label="worker")
    with start(program) as run:
        run.scale("worker", 3)
        logs = [run.folder.log_file(f"worker/{index}") for index in range(3)]
        assert until(lambda: all(log.exists() and "here" in log.read_text() for log in logs))
        run.scale("worker", 1)
        assert until(lambda: len(run.status().nodes) == 1)
    assert run.folder.metrics_file("worker/2").exists()


class Parameters:
    """Publishes 2 MB, as often as it is told to."""

    def __init__(self) -> None:
        self._shared = lpml.Shared(np.zeros(500_000, np.float32))

    def pull(self) -> lpml.Shared[Any]:
        return self._shared

    def items(self) -> Iterator[lpml.Shared[Any]]:
        for value in range(3):
            yield lpml.Shared(np.full(500_000, value, np.float32))

    def set(self, value: float) -> None:
        self._shared = lpml.Shared(np.full(500_000, value, np.float32))

    def alive(self) -> int:
        """How many values this process has."""
        return len(shared._known)


class Pulls:
    """Reads them."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def pull(self) -> tuple[float, tuple[int, int]]:
        """The first number, and which file it is in."""
        value = self._parameters.pull()
        found = os.fstat(value.file.fd)
        return float(value.value[0]), (found.st_dev, found.st_ino)

    def items(self) -> list[float]:
        return [float(each.value[0]) for each in lpml.stream(self._parameters.items)]


def readers() -> lpml.Program:
    """Parameters on host a, and readers on both: of every second index on b."""
    program = lpml.Program("readers")
    parameters = program.add_node(lpml.Node(Parameters), label="parameters")
    with program.group("reader"):
        for _ in range(8):
            program.add_node(lpml.Node(Pulls, parameters))
    return program


@pytest.mark.usefixtures("members")
def test_a_snapshot_comes_to_each_host_once(start: Callable[..., Run]) -> None:
    with start(readers()) as run:
        clients = [run.client(f"reader/{index}") for index in range(8)]
        with lpml.deadline(60.0):
            for value in range(3):
                run.client("parameters/0").set(value)
                futures = [lpml.future(client.pull) for client in clients]
                found = [future.result() for future in futures]
                assert {number for number, _ in found} == {value}
                assert len({file for _, file in found}) == 2  # one here, and one there
            assert [client.items() for client in clients] == [[0.0, 1.0, 2.0]] * 8
            assert until(lambda: run.client("parameters/0").alive() <= 2)


@pytest.mark.usefixtures("members")
def test_without_a_relay_each_reader_asks_the_owner(start: Callable[..., Run]) -> None:
    with start(readers()) as run:
        for agent in Subprocesses.last.agents.values():
            assert agent.agent._relay is not None
            agent.agent._relay.close()
        clients = [run.client(f"reader/{index}") for index in range(8)]
        with lpml.deadline(60.0):
            found = [client.pull() for client in clients]
        assert {number for number, _ in found} == {0.0}
        assert len({file for _, file in found}) == 5


def test_a_host_that_does_not_see_the_run_folder_says_so(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "logs", property(lambda self: self.path / "elsewhere"))
    monkeypatch.setattr(RunFolder, "log_file", lambda self, node: self.path / "file")
    with pytest.raises(lpml.LaunchError, match="does not see the run folder"):
        start(pair())
