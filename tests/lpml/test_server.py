"""A server on a real socket: kinds of methods, turns, hostile peers, and its end."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.context import Context
from lpml.errors import LaunchError
from lpml.service import interface_of
from lpml.wire import frames, memory

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(service: Any) -> Iterator[tuple[Any, wire.Server, str]]:
    """A client, the server and its address."""
    interface = interface_of(type(service))
    with tempfile.TemporaryDirectory(prefix="lw") as folder:
        listener = wire.listen(Path(folder) / "s")
        dispatcher = wire.Dispatcher(service, interface, Context("node/0", "node"), "node/0")
        server = wire.Server(dispatcher, listener)
        server.start()
        address = f"unix:{folder}/s"
        client = wire.connect(address, interface, node="node/0", caller="test", log="node.log")
        try:
            yield client, server, address
        finally:
            wire.close(client)
            server.close()


class Plain:
    """Every method is serial."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.go = threading.Event()
        self.entered = threading.Event()

    def echo(self, value: Any) -> Any:
        return value

    def add(self, left: int, *, right: int) -> int:
        return left + right

    def hold(self) -> bool:
        """Waits in the node's own way."""
        self.entered.set()
        return lpml.context().wait(60)

    def block(self) -> int:
        """Waits where no cancellation reaches."""
        self.entered.set()
        return int(self.go.wait(30))

    def alone(self) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        self.running -= 1
        return self.most

    def who(self) -> str:
        return lpml.context().name


class Mixed:
    """Serial, concurrent and batched methods."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(3)
        self.sizes: list[int] = []
        self.value = 0

    @lpml.concurrent
    def meet(self) -> int:
        return self.barrier.wait(60.0)

    @lpml.concurrent
    def wait_for(self, value: int) -> int:
        lpml.context().clock.wait(0.0)
        with self._changed() as changed:
            changed.wait_for(lambda: self.value >= value)
        return self.value

    def set(self, value: int) -> None:
        with self._changed() as changed:
            self.value = value
            changed.notify_all()

    @contextmanager
    def _changed(self) -> Iterator[Any]:
        if not hasattr(self, "_condition"):
            self._condition = lpml.context().clock.condition()
        with self._condition:
            yield self._condition

    @lpml.batched(max_size=4, timeout=5.0)
    def double(self, x: Any) -> Any:
        self.sizes.append(len(x))
        if (x < 0).any():
            raise ValueError("negative")
        return 2 * x


def test_a_call_returns_what_the_method_returns() -> None:
    with served(Plain()) as (client, server, _):
        assert client.echo(3) == 3
        assert client.add(1, right=2) == 3
        assert client.who() == "node/0"
        statistics = server.statistics()
        assert (statistics.calls, statistics.connections, statistics.in_flight) == (3, 1, 0)
        assert statistics.bytes_in > 0
        assert statistics.bytes_out > 0


@pytest.mark.parametrize("shared_memory", [True, False])
def test_large_arrays_go_both_ways(shared_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shared_memory:
        monkeypatch.setattr(memory, "supported", False)
    elif not memory.supported:
        pytest.skip("no memfd here")
    with served(Plain()) as (client, _, _):
        for count in (10, 40_000, 1_000_000):
            array = np.random.default_rng(0).normal(size=count)
            for _ in range(3):
                np.testing.assert_array_equal(client.echo(array), array)
        tree = {"shared": lpml.Shared(array), "own": array[:5]}
        np.testing.assert_array_equal(client.echo(tree)["shared"].value, array)


def test_serial_methods_run_one_at_a_time_whoever_calls() -> None:
    with served(Plain()) as (client, _, address):
        others = [wire.connect(address, interface_of(Plain), node="node/0") for _ in range(4)]
        pending = [lpml.future(c.alone) for c in [client, *others] for _ in range(50)]
        assert max(each.result() for each in pending) == 1


def test_a_slow_serial_call_does_not_keep_the_server_from_new_callers_and_cancellations() -> None:
    service = Plain()
    with served(service) as (client, server, address):
        slow = lpml.future(client.block)
        assert service.entered.wait(60.0)
        waiting = lpml.future(client.echo, 1)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(address.partition(":")[2])
            other.settimeout(60)
            other.sendall(b"this is no frame of the protocol")
            assert other.recv(1000)  # told off while the call still runs
        assert waiting.cancel()
        service.go.set()
        assert slow.result(60.0) == 1
        assert client.echo(2) == 2
        assert server.statistics().in_flight == 0


def test_a_running_call_is_cancelled_where_it_waits() -> None:
    service = Plain()
    with served(service) as (client, _, _):
        for _ in range(2):
            service.entered.clear()
            waiting = lpml.future(client.hold)
            assert service.entered.wait(60.0)
            assert waiting.cancel()
            assert client.echo(1) == 1  # its turn comes: the other has ended


def test_a_call_ends_at_its_deadline_and_the_method_too() -> None:
    service = Plain()
    with served(service) as (client, _, _):
        with lpml.deadline(0.05), pytest.raises(lpml.CallTimeout, match=r"test called node/0.hold"):
            client.hold()
        assert client.echo(1) == 1


def test_concurrent_methods_run_together_and_beside_serial_ones() -> None:
    with served(Mixed()) as (client, _, _):
        together = [lpml.future(client.meet) for _ in range(3)]
        assert sorted(each.result(60.0) for each in together) == [0, 1, 2]
        blocked = lpml.future(client.wait_for, 5)
        client.set(4)
        assert not blocked.done()
        client.set(5)
        assert blocked.result(60.0) == 5


def test_calls_of_a_batched_method_are_served_together() -> None:
    service = Mixed()
    with served(service) as (client, _, _):
        pending = [lpml.future(client.double, np.float32(n)) for n in range(8)]
        assert [float(each.result(60.0)) for each in pending] == [2.0 * n for n in range(8)]
        assert service.sizes == [4, 4]


def test_an_error_in_a_batch_reaches_every_caller_of_it() -> None:
    with served(Mixed()) as (client, _, _):
        pending = [lpml.future(client.double, np.float32(n)) for n in (1, -1, 2, 3)]
        for each in pending:
            with pytest.raises(ValueError, match="negative"):
                each.result(60.0)


def test_an_end_of_the_server_fails_every_pending_call_at_once() -> None:
    service = Plain()
    with served(service) as (client, server, _):
        pending = [lpml.future(client.hold) for _ in range(5)]
        assert service.entered.wait(60.0)
        server.close()
        for each in pending:
            with pytest.raises(lpml.NodeUnavailable, match=r"test called node/0\.hold"):
                each.result(60.0)
        with pytest.raises(lpml.NodeUnavailable, match="nothing answers"):
            client.echo(1)


def test_closing_twice_does_no_harm() -> None:
    with served(Plain()) as (client, server, _):
        client.echo(1)
        server.close()
        server.close()


def test_calls_wait_in_the_backlog_for_a_server_that_is_not_up_yet() -> None:
    with tempfile.TemporaryDirectory(prefix="lw") as folder:
        listener = wire.listen(Path(folder) / "s")
        interface = interface_of(Plain)
        client = wire.connect(f"unix:{folder}/s", interface, node="late/0")
        early = lpml.future(client.echo, 7)
        server = wire.Server(wire.Dispatcher(Plain(), interface, Context(), "late/0"), listener)
        server.start()
        assert early.result(60.0) == 7
        wire.close(client)
        server.close()


def raw(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(address.partition(":")[2])
    return connection


def refused(connection: socket.socket) -> bytes:
    """What the server says before it closes the connection."""
    said = b""
    try:
        while data := connection.recv(1 << 16):
            said += data
    except ConnectionResetError:
        pass
    return said


class Canary:
    """Unpickling it is seen."""

    touched = threading.Event()

    def __reduce__(self) -> Any:
        return Canary.touched.set, ()


def test_nothing_is_unpickled_before_the_hello() -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return exec, ("import lpml; lpml.bomb_went_off = True",)

    body = pickle.dumps((Bomb(),))
    call = frames.header(4 + len(body), frames.CALL, extra=4, call=1) + b"echo" + body
    wrong = frames.header(4, frames.HELLO, extra=frames.VERSION) + b"http"
    with served(Plain()) as (client, _, address):
        for opening in (call, wrong + call, b"GET / HTTP/1.1\r\n\r\n" + call):
            with raw(address) as connection:
                connection.sendall(opening)
                refused(connection)
        assert not hasattr(lpml, "bomb_went_off")
        assert client.echo(1) == 1


def test_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Plain()) as (client, _, address):
        assert client.echo(1) == 1
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        with raw(address) as connection:
            assert refused(connection) == b""
        monkeypatch.undo()
        assert client.echo(2) == 2


def test_a_client_of_another_version_is_told_so() -> None:
    with served(Plain()) as (_, _, address), raw(address) as connection:
        connection.sendall(frames.header(4, frames.HELLO, extra=77) + frames.MAGIC)
        assert b"one release of lpml" in refused(connection)


def test_no_input_harms_the_server() -> None:
    rng = random.Random(0)
    hello = frames.hello("fuzz")
    with served(Plain()) as (client, server, address):
        for round_ in range(150):
            with raw(address) as connection:
                junk = rng.randbytes(rng.randrange(1, 300))
                kind = rng.randrange(1, 12)
                head = frames.header(
                    len(junk), kind, rng.randrange(8), rng.randrange(6), rng.randrange(3)
                )
                wrong = junk if round_ % 3 == 0 else head + junk
                connection.sendall((hello if round_ % 2 else b"") + wrong)
                connection.shutdown(socket.SHUT_WR)
                refused(connection)
            if round_ % 10 == 0:
                assert client.echo(round_) == round_
        assert server.statistics().connections == 1
        assert server.statistics().in_flight == 0


def test_a_file_that_is_no_memory_closes_only_its_connection() -> None:
    if not memory.supported:
        pytest.skip("no memfd here")
    from lpml.wire.messages import Table

    table = Table(1, True, 1, 1 << 20, [100]).pack()
    call = frames.header(4 + len(table), frames.CALL, frames.TABLE, 4, 1) + b"echo" + table
    with served(Plain()) as (client, _, address), raw(address) as connection:
        with open(os.devnull, "rb") as null:
            socket.send_fds(connection, [frames.hello("x") + call], [null.fileno()])
        assert b"announced as one of" in refused(connection)
        assert client.echo(1) == 1


def test_a_client_that_never_reads_does_not_keep_others_waiting() -> None:
    with served(Plain()) as (client, _, address), raw(address) as deaf:
        import pickle

        body = pickle.dumps((b"x" * 100_000,))
        deaf.sendall(frames.hello("deaf"))
        for call in range(30):
            head = frames.header(4 + len(body), frames.CALL, extra=4, call=call)
            deaf.sendall(head + b"echo" + body)
        assert client.echo(1) == 1


def test_a_listener_says_why_it_cannot_be() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(LaunchError, match="LPML_SOCKETS"):
            wire.listen(Path(folder) / ("x" * 120))
        taken = wire.listen(Path(folder) / "s")
        with pytest.raises(LaunchError, match="cannot be made"):
            wire.listen(Path(folder) / "s")
        taken.close()
        inner = Path(folder) / "new" / "s"
        wire.listen(inner).close()
        assert inner.parent.stat().st_mode & 0o777 == 0o700
        assert inner.stat().st_mode & 0o777 == 0o600


# A server whose process has no descriptor left for a caller; prints two warnings and an answer.
OUT_OF_DESCRIPTORS = """
import logging, os, queue, resource, socket
from tests.lpml.test_server import Plain, served

class Kept(logging.Handler):
    lines = queue.Queue()
    def emit(self, record):
        self.lines.put(record.getMessage())

logging.getLogger("lpml.wire").addHandler(Kept())
with served(Plain()) as (client, server, address):
    client.echo(1)
    caller = socket.socket(socket.AF_UNIX)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1, hard))
    caller.connect(address.removeprefix("unix:"))
    print(Kept.lines.get(timeout=20))
    print(Kept.lines.get(timeout=20))
    print(client.echo(2))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    caller.settimeout(20)
    caller.sendall(bytes(64))
    print(caller.recv(1 << 10) is not None)  # it was let in, if only to be refused
    caller.close()
"""


def test_a_server_without_descriptors_waits_for_some_and_does_not_fill_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS],
        capture_output=True, text=True, timeout=90, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, *rest = done.stdout.splitlines()
    assert "node/0 cannot accept a caller: [Errno 24]" in first
    found = re.search(r"and (\d+) before it", second)  # in the second between the two
    assert found is not None
    assert int(found[1]) <= 20
    assert rest == ["2", "True"]
