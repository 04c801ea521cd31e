"""Calls between hosts: over TLS, between members of one run and nobody else."""

from __future__ import annotations

import logging
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.context import Context
from lpml.service import interface_of
from lpml.wire import frames, tls
from lpml.wire.threads import future_in_thread
from lpml.wire.tls import Identity
from tests.waiting import until

pytest.importorskip("cryptography", reason="needs the extra ray")


class Service:
    """A bit of everything."""

    def __init__(self) -> None:
        self._count = 0

    def echo(self, value: Any) -> Any:
        return value

    def fail(self) -> None:
        raise ValueError("no")

    @lpml.concurrent
    def wait(self, seconds: float) -> bool:
        return lpml.context().wait(seconds)

    def items(self, count: int) -> Iterator[int]:
        yield from range(count)

    @lpml.idempotent
    def count(self) -> int:
        self._count += 1
        return self._count

    def board(self, size: int) -> Any:
        self._board = np.ones(size, np.uint8)
        return [self._board, b"and what is small"]

    def wipe(self) -> None:
        self._board[:] = 0


class Node:
    """A server at a TLS socket of this machine."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        interface = interface_of(Service)
        context = Context("server/0", "server")
        dispatcher = wire.Dispatcher(Service(), interface, context, "server/0")
        self.remote = tls.listen_tcp("127.0.0.1")
        self.address = tls.address_of(self.remote, identity)
        self.server = wire.Server(
            dispatcher, wire.listen(folder / "s.sock"), (self.remote, identity)
        )
        self.server.start()
        self.client = wire.connect(self.address, interface, node="server/0", caller="test")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def close(self) -> None:
        wire.close(self.client)
        self.server.close()


def members(*names: str, run: str = "this", **options: Any) -> list[Identity]:
    from lpml.wire.authority import Authority

    authority = Authority(run, **options)
    return [authority.issue(name) for name in names]


@pytest.fixture
def identity() -> Iterator[Identity]:
    """This process is a member of a run."""
    (mine,) = members("host")
    tls.join(mine)
    yield mine
    tls.leave(mine)


@pytest.fixture
def node(identity: Identity, tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, identity)
    yield made
    made.close()


def test_calls_go_over_tls_as_over_anything_else(node: Node) -> None:
    client = node.client
    assert client.echo({"a": [1, None]}) == {"a": [1, None]}
    with pytest.raises(ValueError, match="no"):
        client.fail()
    futures = [lpml.future(client.echo, i) for i in range(200)]
    assert [future.result() for future in futures] == list(range(200))
    assert list(lpml.stream(client.items, 1000)) == list(range(1000))
    with lpml.deadline(0.05), pytest.raises(lpml.CallTimeout):
        client.wait(30.0)


@pytest.mark.parametrize("size", [1, 1 << 10, (1 << 14) + 1, 1 << 18, 3_000_001, 40_000_000])
def test_arrays_of_every_size_arrive_whole(node: Node, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    back = node.client.echo({"a": array, "b": array[: size // 2]})
    np.testing.assert_array_equal(back["a"], array)
    np.testing.assert_array_equal(back["b"], array[: size // 2])
    back["a"][0] = 1  # and are the caller's own
    if size > 1 << 20:
        assert back["a"].ctypes.data % 64 == back["b"].ctypes.data % 64 == 0


def test_what_a_node_does_with_a_result_that_is_under_way_is_not_seen(
    node: Node, identity: Identity
) -> None:
    interface = interface_of(Service)
    other = wire.connect(node.address, interface, node="server/0", caller="other")
    future = lpml.future(node.client.board, 40_000_000)  # of which nobody reads the reply yet
    assert until(lambda: node.server.statistics().bytes_out > 100_000)
    other.wipe()
    board, small = future.result()
    assert board.all()
    assert len(board) == 40_000_000
    assert small == b"and what is small"
    wire.close(other)


def test_shared_values_arrive_as_shared_values(node: Node) -> None:
    for size in (10, 3_000_000):
        shared = lpml.Shared({"a": np.arange(size)})
        back = node.client.echo([shared, shared, 7])
        assert back[0] is back[1]
        np.testing.assert_array_equal(back[0].value["a"], np.arange(size))


def test_a_broadcast_reaches_other_hosts(node: Node, identity: Identity, tmp_path: Path) -> None:
    other = Node(tmp_path / "other", identity)
    array = np.arange(1_000_000)
    with_shared = {"array": array, "shared": lpml.Shared(np.ones(1_000_000))}
    try:
        for future in lpml.broadcast([node.client, other.client], Service.echo, with_shared):
            back = future.result()
            np.testing.assert_array_equal(back["array"], array)
            assert back["shared"].value.sum() == 1_000_000
    finally:
        other.close()


def test_many_threads_share_a_connection(node: Node) -> None:
    wrong: list[object] = []

    def call(number: int) -> None:
        rng = np.random.default_rng(number)
        for i in range(40):
            array = rng.integers(0, 9, int(rng.integers(1, 200_000)), np.uint8)
            if not np.array_equal(node.client.echo(array), array):
                wrong.append((number, i))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_idempotent_call_outlives_a_connection(node: Node) -> None:
    assert node.client.count() == 1
    future = lpml.future(node.client.wait, 30.0)
    assert until(lambda: node.server.statistics().in_flight == 1)
    channel = node.client._lpml_peer.link.open_channel
    channel._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(lpml.NodeUnavailable):
        future.result()
    assert node.client.count() == 2


@pytest.mark.parametrize("attempt", range(5))
def test_a_call_after_a_node_has_closed_is_for_the_next_that_listens(
    identity: Identity, tmp_path: Path, attempt: int
) -> None:
    """Though it may not be made twice: TCP would take it, and nobody could say who had it."""
    first = Node(tmp_path, identity)
    kept = first.remote.dup()
    assert first.client.echo(attempt) == attempt
    first.server.close()
    dispatcher = wire.Dispatcher(
        Service(), interface_of(Service), Context("server/0", "server"), "server/0"
    )
    second = wire.Server(dispatcher, wire.listen(tmp_path / "t.sock"), (kept, identity))
    second.start()
    assert first.client.echo(attempt) == attempt
    wire.close(first.client)
    second.close()


def test_a_call_to_a_node_that_is_being_built_waits_for_it(
    identity: Identity, tmp_path: Path
) -> None:
    interface = interface_of(Service)
    remote = tls.listen_tcp("127.0.0.1")
    client = wire.connect(tls.address_of(remote, identity), interface, node="server/0")
    with lpml.deadline(0.05), pytest.raises(lpml.CallTimeout):
        client.echo(1)
    future = future_in_thread(client.echo, (2,), {})
    context = Context("server/0", "server")
    dispatcher = wire.Dispatcher(Service(), interface, context, "server/0")
    server = wire.Server(dispatcher, wire.listen(tmp_path / "s.sock"), (remote, identity))
    server.start()
    assert future.result() == 2
    wire.close(client)
    server.close()


# Who is let in.


def refused(node: Node, context: ssl.SSLContext | None) -> bool:
    """Whether a connection with these credentials gets nowhere."""
    plain = socket.create_connection(("127.0.0.1", node.port), timeout=5.0)
    try:
        if context is not None:
            plain = context.wrap_socket(plain)
        plain.sendall(b"\0" * 100)
        return plain.recv(100) == b""
    except OSError:
        return True
    finally:
        plain.close()


def loose(*, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that takes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def with_certificate(shown: Identity, folder: Path) -> ssl.SSLContext:
    context = loose()
    path = folder / "shown.pem"
    path.write_text(shown.certificate + shown.key)
    context.load_cert_chain(path)
    return context


def test_whoever_shows_no_certificate_is_refused(node: Node, caplog: Any) -> None:
    assert refused(node, loose())
    assert node.client.echo(1) == 1
    assert "server/0 refused a connection" in caplog.text


def test_a_member_of_another_run_is_refused(node: Node, tmp_path: Path) -> None:
    (other,) = members("host", run="this")  # of the same name, by another authority
    assert refused(node, with_certificate(other, tmp_path))
    assert node.client.echo(1) == 1


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    mine, late = members("host", "late", days=-0.5)
    tls.join(mine)
    try:
        node = Node(tmp_path, mine)
        assert refused(node, with_certificate(late, tmp_path))
        with pytest.raises(lpml.NodeUnavailable):
            node.client.echo(1)
        node.close()
    finally:
        tls.leave(mine)


def test_older_tls_and_plain_text_are_refused(node: Node, identity: Identity) -> None:
    old = loose(version=ssl.TLSVersion.TLSv1_2)
    plain = socket.create_connection(("127.0.0.1", node.port), timeout=5.0)
    with pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)
    assert refused(node, None)
    assert node.client.echo(1) == 1


def test_a_client_takes_no_server_of_another_run(identity: Identity, tmp_path: Path) -> None:
    (other,) = members("a")
    node = Node(tmp_path, other)
    pretending = node.address.replace(other.run, identity.run)
    client = wire.connect(pretending, interface_of(Service), node="server/0")
    with pytest.raises(lpml.NodeUnavailable, match="certificate"):
        client.echo(1)
    node.close()


def test_a_process_of_no_run_cannot_call(tmp_path: Path) -> None:
    (other,) = members("a")
    node = Node(tmp_path, other)
    with pytest.raises(lpml.NodeUnavailable, match="not of it"):
        node.client.echo(1)
    node.close()


def test_silent_peers_hold_nobody_up(node: Node) -> None:
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(400)]
    assert node.client.echo(1) == 1  # the oldest of them had to go
    assert until(lambda: sum(is_closed(each) for each in silent) >= 400 - 256)
    for each in silent:
        each.close()


def test_the_log_says_why_a_connection_ends_before_it_ends(node: Node) -> None:
    silent: list[socket.socket] = []
    closed: list[bool] = []

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            closed.append(is_closed(silent[0]))

    log, handler = logging.getLogger("lpml.wire"), Log()
    log.addHandler(handler)
    try:
        while not closed:  # until too many are at the door
            silent.append(socket.create_connection(("127.0.0.1", node.port)))
        assert not closed[0]
        assert until(lambda: is_closed(silent[0]))
    finally:
        log.removeHandler(handler)
        for each in silent:
            each.close()


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("after", ["nothing", "hello"])
def test_rubbish_of_a_member_ends_its_own_connection(
    node: Node, identity: Identity, after: str
) -> None:
    rng = random.Random(0)
    for _ in range(100):
        member = tls.dial_tls(node.address)
        member.send(frames.hello("fuzz") if after == "hello" else b"")
        member.send(frame_of(rng))
        member.send(frame_of(rng))
        member.close()
    assert node.client.echo(1) == 1
    assert until(lambda: node.server.statistics().connections == 1)


def frame_of(rng: random.Random) -> bytes:
    """A frame whose parts are mostly plausible."""
    payload = rng.randbytes(rng.choice((0, 4, 30, 200)))
    name = rng.choice((b"echo", b"items", b"", b"nobody"))
    kind, flags = rng.randrange(14), rng.choice((0, 0, 1, 2, 4, 7, 255))
    size = rng.choice((len(name) + len(payload), 0, 1 << 31))
    head = frames.HEADER.pack(size, kind, flags, len(name), rng.getrandbits(32), 1.0)
    if flags & frames.LONG:
        long = rng.choice((0, len(payload), 1 << 21, 1 << 62))
        head += long.to_bytes(8, "little")
    return head + name + payload


def test_rubbish_of_strangers_costs_nothing(node: Node) -> None:
    rng = random.Random(0)
    hello = b"\x16\x03\x01"  # how a handshake begins
    for index in range(100):
        with socket.create_connection(("127.0.0.1", node.port)) as stranger:
            stranger.sendall((hello if index % 2 else b"") + rng.randbytes(rng.randrange(300)))
    assert node.client.echo(1) == 1
    assert until(lambda: node.server.statistics().connections == 1)


def test_the_key_is_not_shown(identity: Identity) -> None:
    assert "PRIVATE" not in repr(identity)
