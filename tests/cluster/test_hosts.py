"""A program on several hosts of a Ray cluster: calls between them, placement, and lost hosts."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml.launchers import Run
from tests.waiting import until

Launch = Callable[..., Run]


@pytest.fixture
def start(cluster: str, tmp_path: Path) -> Launch:
    """Launches a program on the cluster."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 5.0}
    options["address"] = cluster
    return lambda program, **changes: lpml.launch(program, "ray", **{**options, **changes})


class Store:
    """Holds a value; knows where it is."""

    def __init__(self) -> None:
        self._value: Any = None

    def put(self, value: Any) -> None:
        self._value = value

    @lpml.idempotent
    def get(self) -> Any:
        return self._value

    @lpml.idempotent
    def where(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    @lpml.idempotent
    def pid(self) -> int:
        return os.getpid()


class Reader:
    """Asks a store of another host."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @lpml.idempotent
    def read(self) -> Any:
        return self._store.get()

    @lpml.idempotent
    def read_sum(self) -> float:
        return float(self._store.get().value.sum())

    @lpml.idempotent
    def pid_of_store(self) -> int:
        return self._store.pid()

    @lpml.idempotent
    def where(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())


def spread(restart: lpml.Restart | None = None) -> lpml.Program:
    """A store and a reader, on two hosts."""
    program = lpml.Program("spread")
    with program.group("all", placement="strict_spread", restart=restart):
        store = program.add_node(lpml.Node(Store), label="store")
        program.add_node(lpml.Node(Reader, store), label="reader")
    return program


def test_nodes_on_two_hosts_call_each_other(start: Launch) -> None:
    with start(spread()) as run:
        store, reader = run.client("store/0"), run.client("reader/0")
        assert store.where() != reader.where()
        array = np.arange(1_000_000)
        store.put({"array": array})
        np.testing.assert_array_equal(reader.read()["array"], array)
        store.put(lpml.Shared(np.ones(2_000_000)))
        assert reader.read_sum() == 2_000_000


def test_groups_are_packed_or_spread_as_they_say(start: Launch) -> None:
    program = lpml.Program("placed")
    for placement in ("strict_pack", "strict_spread"):
        with program.group(placement, placement=placement):
            for _ in range(2):
                program.add_node(lpml.Node(Store))
    with start(program) as run:
        hosts = {
            name: {run.client(f"{name}/{i}").where() for i in range(2)}
            for name in ("strict_pack", "strict_spread")
        }
    assert (len(hosts["strict_pack"]), len(hosts["strict_spread"])) == (1, 2)


def test_what_the_cluster_can_never_give_is_refused_at_once(start: Launch) -> None:
    program = lpml.Program("large")
    with program.group("a", resources=lpml.Resources(cpu=17)):
        program.add_node(lpml.Node(Store))
    with program.group("b", resources=lpml.Resources(custom={"tpu": 4})):
        program.add_node(lpml.Node(Store))
    with program.group("c", placement="strict_spread"):
        for _ in range(3):
            program.add_node(lpml.Node(Store))
    with pytest.raises(lpml.GraphError) as caught:
        start(program)
    faults = caught.value.faults
    assert len(faults) == 3
    assert "a/0: asks for 17 CPU" in faults[0]
    assert "4 tpu" in faults[1]
    assert "wants 3 hosts, and the cluster has 2" in faults[2]


def test_a_killed_node_is_restarted_where_it_was_and_calls_ride_through(start: Launch) -> None:
    with start(spread(lpml.Restart.on_failure(backoff=0.02))) as run:
        reader = run.client("reader/0")
        before = reader.pid_of_store()
        os.kill(before, signal.SIGKILL)
        with lpml.deadline(60.0):
            after = reader.pid_of_store()
        assert after != before
        status = next(n for n in run.status().nodes if n.name == "store/0")
        assert status.restarts == 1


def test_a_stopped_node_is_seen_by_its_stack_and_ended(start: Launch) -> None:
    with start(spread()) as run:
        pid = run.client("store/0").pid()
        os.kill(pid, signal.SIGSTOP)
        assert "stopped by a signal" in run.stack("store/0", timeout=1.0)
        run.stop(timeout=3.0)
    assert until(lambda: not Path(f"/proc/{pid}").exists())


class Saved:
    """Counts; its state is saved."""

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> int:
        self._count += 1
        return self._count

    @lpml.idempotent
    def pid(self) -> int:
        return os.getpid()

    def save(self) -> int:
        return self._count

    def restore(self, state: int) -> None:
        self._count = state


def test_a_node_with_state_is_set_back_with_the_run(start: Launch) -> None:
    program = lpml.Program("saved")
    restart = lpml.Restart.on_failure(backoff=0.02)
    with program.group("all", placement="strict_spread", restart=restart):
        program.add_node(lpml.Node(Saved), label="first")
        program.add_node(lpml.Node(Saved), label="second")
    with start(program) as run:
        first, second = run.client("first/0"), run.client("second/0")
        assert [first.add(), first.add(), second.add()] == [1, 2, 1]
        run.checkpoint()
        assert first.add() == 3
        os.kill(second.pid(), signal.SIGKILL)
        assert until(lambda: all(node.restarts for node in run.status().nodes))
        with lpml.deadline(60.0):
            assert first.pid() != second.pid()  # they answer again
            assert [first.add(), second.add()] == [3, 2]
    with start(program, resume=run.folder.path) as again:
        assert again.client("first/0").add() == 3  # of the last cut that was asked for


@pytest.fixture
def failing() -> Iterator[Any]:
    """A cluster of its own, with a host that can be taken away, in another process."""
    from tests.cluster.conftest import own_cluster

    yield from own_cluster(3)


def test_nodes_of_a_lost_host_go_on_elsewhere(failing: Any, tmp_path: Path) -> None:
    # In a process of its own: this one is connected to another cluster.
    script = textwrap.dedent(
        """
        import json, sys
        from pathlib import Path
        import lpml
        from tests.cluster.test_hosts import Store, until
        program = lpml.Program("lost")
        with program.group("store", placement="spread", restart=lpml.Restart.on_failure(None)):
            for _ in range(3):
                program.add_node(lpml.Node(Store))
        address, folder = sys.argv[1:]
        with lpml.launch(program, "ray", address=address, directory=folder) as run:
            clients = [run.client(f"store/{i}") for i in range(3)]
            print(json.dumps([client.where() for client in clients]), flush=True)
            lost = int(sys.stdin.readline())
            assert until(lambda: run.status().nodes[lost].restarts == 1, 90.0)
            with lpml.deadline(90.0):
                again = run.client(f"store/{lost}").where()
            print(json.dumps([again, *[c.where() for i, c in enumerate(clients) if i != lost]]))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, failing.address, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        where = json.loads(json_line(process.stdout))
        assert len(set(where)) == 3
        gone = failing.remove(where)
        process.stdin.write(f"{where.index(gone)}\n")
        process.stdin.flush()
        after = json.loads(json_line(process.stdout))
        process.wait(60.0)
    assert gone not in after
    assert process.returncode == 0


def json_line(stream: Any) -> str:
    """The next line that is a list; Ray prints others."""
    return next(str(line) for line in stream if line.startswith("["))
