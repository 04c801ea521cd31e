"""One connection: many threads, large streams, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.wire import memory
from tests.lpml.called import INTERFACE, Service, over_a_connection
from tests.lpml.called import client as client
from tests.lpml.called import remote as remote
from tests.lpml.called import service as service


def test_a_slow_reader_holds_its_stream_back(remote: Any, service: Service) -> None:
    items = lpml.stream(remote.count, 1000)
    next(items)
    assert remote.echo(1) == 1  # the node has done what it would
    assert service.made <= 17
    for _ in range(50):
        next(items)
    assert remote.echo(1) == 1
    assert 50 < service.made <= 70
    items.close()


@pytest.mark.parametrize("shared_memory", [True, False])
def test_streams_of_large_arrays(
    remote: Any, shared_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared_memory:
        monkeypatch.setattr(memory, "supported", False)
    for index, array in enumerate(lpml.stream(remote.count, 20, 100_000)):
        assert array.sum() == index * 100_000


def test_many_threads_share_one_connection(remote: Any) -> None:
    wrong: list[Any] = []

    def call(base: int) -> None:
        for n in range(100):
            if n % 10 == 0:
                big = np.full(40_000, base + n)
                wrong.extend([base] if not (remote.echo(big) == big).all() else [])
            futures = [lpml.future(remote.echo, (base, n, k)) for k in range(3)]
            wrong.extend(k for k, f in enumerate(futures) if f.result(30) != (base, n, k))
            if remote.echo(base + n) != base + n:
                wrong.append(n)

    threads = [threading.Thread(target=call, args=(base * 1000,)) for base in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_both_sides_may_send_much_at_the_same_time(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "supported", False)
    payload = os.urandom(3_000_000)
    futures = [lpml.future(remote.echo, payload) for _ in range(12)]
    assert all(future.result(60) == payload for future in futures)


def test_a_client_that_was_closed_says_so(service: Service) -> None:
    with over_a_connection(service) as client:
        pending = lpml.future(client.hold)
        assert service.held.acquire(timeout=60)
        wire.close(client)
        wire.close(client)
        with pytest.raises(lpml.NodeUnavailable, match="closed"):
            pending.result(60.0)
        with pytest.raises(lpml.NodeUnavailable, match="was closed; make another"):
            client.echo(1)


def test_one_of_two_clients_may_be_closed(service: Service) -> None:
    with over_a_connection(service) as client:
        address = client._lpml_peer.link.address
        second = wire.connect(address, INTERFACE, node="node/0")
        assert second.echo(1) == client.echo(1) == 1
        wire.close(second)
        assert client.echo(2) == 2


def test_nobody_at_the_address_is_unavailable_at_once() -> None:
    client = wire.connect("unix:/nowhere/at/all", INTERFACE, node="node/9", caller="me")
    with pytest.raises(lpml.NodeUnavailable, match="me cannot reach node/9"):
        client.echo(1)
    with pytest.raises(lpml.NodeUnavailable, match="unix:/path"):
        wire.connect("carrier pigeon", INTERFACE, node="node/9").echo(1)


_CHILD = """
import sys
from pathlib import Path
import lpml
from lpml import wire
from lpml.service import Interface, MethodSpec
from lpml.context import Context

class Service:
    def hold(self):
        return lpml.context().wait(60)
    def echo(self, value):
        return value

interface = Interface("Service", {"hold": MethodSpec(), "echo": MethodSpec()})
server = wire.Server(
    wire.Dispatcher(Service(), interface, Context(), "child/0"), wire.listen(Path(sys.argv[1]))
)
server.start()
print("up", flush=True)
sys.stdin.read()
"""


def test_a_killed_node_fails_its_pending_calls_at_once(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lw") as folder:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, f"{folder}/s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            client = wire.connect(f"unix:{folder}/s", INTERFACE, node="child/0")
            assert client.echo(3) == 3
            pending = [lpml.future(client.hold) for _ in range(3)]
            child.kill()
            for each in pending:
                with pytest.raises(lpml.NodeUnavailable, match="child/0 is gone"):
                    each.result(60.0)
            with pytest.raises(lpml.NodeUnavailable):
                client.echo(1)
            wire.close(client)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings(  # of jax, where another test has used it
    "ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_forked_process_makes_a_connection_of_its_own(service: Service, remote: Any) -> None:
    assert remote.echo(1) == 1
    pending = lpml.future(remote.until_go, 5)
    pid = os.fork()
    if pid == 0:
        fine = False
        try:
            gone = pending.exception(60.0)  # its reply goes to the parent
            assert isinstance(gone, lpml.NodeUnavailable)
            assert "forked" in str(gone)
            fine = remote.echo(2) == 2 and lpml.future(remote.echo, 3).result(60.0) == 3
        finally:
            os._exit(0 if fine else 1)
    assert [remote.echo(n) for n in range(50)] == list(range(50))
    assert os.waitpid(pid, 0)[1] == 0
    assert not pending.done()
    service.go.set()
    assert pending.result(60.0) == 5
