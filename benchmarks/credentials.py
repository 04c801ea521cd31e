"""Strangers at the door and rubbish from members, while an honest caller measures its own calls.

    python -m benchmarks.credentials [--connections 10000] [--frames 1000000] [--json]

Needs the extra ray (its package cryptography). What is counted:

- accepted: calls that the server ran beyond those of the honest callers, and connections beyond
  theirs, while strangers knock with no certificate, with one of another authority, with a
  genuine conversation said again, with the beginning of one, and in plain text.
- crashes: whether the server has died, or an honest call failed, while members send fuzzed frames.
- honest calls, over TLS and over the Unix socket: median while nobody disturbs, and meanwhile.
  Whoever disturbs takes processor time on the same machine; it yields to
  the others (nice 19). With fewer free cores than the three processes, the ratio also says how
  the machine divides them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import pickle
import random
import socket
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lpml import wire
from lpml.context import Context
from lpml.service import interface_of
from lpml.wire import frames, tls
from lpml.wire.authority import Authority
from lpml.wire.sockets import dial
from lpml.wire.tls import Identity

PAUSE = 0.001  # seconds between two honest calls
ARGUMENTS = pickle.dumps((1,))
MARK = 0xFFFFFFFF  # the id of the call by which a fuzzing member knows how far the server is
PER_CONNECTION = 100  # frames that a member sends at most before it comes anew


class Echo:
    def echo(self, value: int) -> int:
        return value


def serve(pipe: Any, identity: Identity, folder: str) -> None:
    """The process of the server: says its address, and its counts when it is asked."""
    logging.disable()  # 10^4 refusals
    tls.join(identity)
    remote = tls.listen_tcp("127.0.0.1")
    dispatcher = wire.Dispatcher(Echo(), interface_of(Echo), Context("server", "server"), "server")
    server = wire.Server(dispatcher, wire.listen(Path(folder) / "s.sock"), (remote, identity))
    server.start()
    pipe.send(tls.address_of(remote, identity))
    while pipe.recv():
        found = server.statistics()
        pipe.send((found.calls, found.connections))
    server.close()


def call_honestly(pipe: Any, identity: Identity, addresses: list[str]) -> None:
    """The process of the honest callers: for each "go", calls until the next message."""
    tls.join(identity)
    clients = [wire.connect(each, interface_of(Echo), node="server") for each in addresses]
    while pipe.recv():
        times: list[list[float]] = [[] for _ in clients]
        while not pipe.poll():
            for client, found in zip(clients, times, strict=True):
                begin = time.perf_counter()
                client.echo(1)
                found.append(time.perf_counter() - begin)
            time.sleep(PAUSE)
        pipe.recv()
        pipe.send(times)


class Recorder:
    """Stands between a member and the server, and writes down what the member says."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.said = b""
        self._port = port
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        ours, _ = self._listener.accept()
        theirs = socket.create_connection(("127.0.0.1", self._port))
        back = threading.Thread(target=self._pass_on, args=(theirs, ours, False), daemon=True)
        back.start()
        self._pass_on(ours, theirs, True)
        back.join()

    def _pass_on(self, source: socket.socket, to: socket.socket, keep: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.said += data if keep else b""
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


def record(address: str, port: int) -> bytes:
    """Everything that a member says from its first handshake to the end of its first call."""
    recorder = Recorder(port)
    client = wire.connect(
        address.replace(f":{port}", f":{recorder.port}"), interface_of(Echo), node="server"
    )
    client.echo(1)
    wire.close(client)
    return recorder.said


def stranger(shown: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if shown is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "shown.pem"
            path.write_text(shown.certificate + shown.key)
            context.load_cert_chain(path)
    return context


def knock(port: int, count: int, recorded: bytes, rng: random.Random) -> None:
    """Connections of strangers, one kind after the other."""
    contexts = [stranger(None), stranger(Authority("another").issue("host"))]
    call = frames.hello("stranger") + frames.header(4, frames.CALL, extra=4, call=1) + b"echo"
    for index in range(count):
        kind = index % 5
        with contextlib.suppress(OSError):
            plain = socket.create_connection(("127.0.0.1", port), timeout=5.0)
            with plain:
                if kind < 2:
                    with contexts[kind].wrap_socket(plain) as secured:
                        secured.sendall(call)
                        secured.recv(1)
                    continue
                cut = rng.randrange(1, len(recorded))
                plain.sendall({2: recorded, 3: recorded[:cut], 4: call}[kind])
                if kind != 3:  # the others hang up in the middle of it
                    while plain.recv(1 << 16):
                        pass


def fuzz(addresses: list[str], count: int, rng: random.Random) -> None:
    """Frames of members, over each kind of connection in turn."""
    size = 4 + len(ARGUMENTS)
    honest = frames.header(size, frames.CALL, extra=4, call=MARK) + b"echo" + ARGUMENTS
    sent = turn = 0
    while sent < count:
        turn += 1
        most = min(count - sent, rng.randrange(1, PER_CONNECTION))
        sent += most
        body = b"".join(rubbish(rng, False) for _ in range(most - 1))
        connection = dial(addresses[turn % len(addresses)])
        try:
            connection.setblocking(True)
            send_all(connection, frames.hello("fuzz") + body + honest)
            await_reply(connection)  # all that came before has been dealt with
            send_all(connection, rubbish(rng, True))
        finally:
            connection.close()


def send_all(connection: Any, data: bytes) -> None:
    while data:
        try:
            data = data[connection.send(data) :]
        except BlockingIOError:
            time.sleep(0.0001)


def await_reply(connection: Any) -> None:
    """Reads until the marked call is answered. Raises if the connection is closed before."""
    decoder, buffer = frames.Decoder(), memoryview(bytearray(1 << 16))
    while True:
        try:
            count = connection.recvmsg_into((buffer,))[0]
        except BlockingIOError:
            continue
        if not count:
            raise ConnectionResetError("the server closed it before a frame that is wrong")
        if any(frame[3] == MARK for frame in decoder.feed(buffer[:count])):
            return


def rubbish(rng: random.Random, last: bool) -> bytes:
    """One frame: mostly one that the server must bear, the last one most often not a frame."""
    payload = rng.randbytes(rng.choice((0, 0, 4, 30, 200)))
    identity = rng.getrandbits(31)
    if not last:
        if rng.random() < 0.7:
            kind = rng.choice((frames.CANCEL, frames.CREDIT))
            return frames.header(len(payload), kind, 0, rng.getrandbits(16), identity) + payload
        name = rng.choice((b"echo", b"nobody", b"\xff"))
        if name == b"echo":  # a pickle is a member's to write: 9 bytes can ask for 16 GB of memory
            payload = ARGUMENTS[: rng.randrange(len(ARGUMENTS))]
        size = len(name) + len(payload)
        return frames.header(size, frames.CALL, 0, len(name), identity, 1.0) + name + payload
    size = rng.choice((len(payload), 0, len(payload) + 5, 1 << 31))
    kind, flags = rng.randrange(256), rng.randrange(256)
    return frames.header(size, kind, flags, rng.getrandbits(16), identity) + payload


class Honest:
    """What the honest callers measured, phase by phase."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.calls = 0
        self.medians: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._pipe.send(True)
        try:
            yield
        finally:
            self._pipe.send(True)
            times = self._pipe.recv()
            self.calls += sum(map(len, times))
            self.medians[name] = [statistics.median(found) for found in times]


def measure(connections: int, num_frames: int, seed: int) -> dict[str, Any]:
    authority = Authority("benchmark")
    mine = authority.issue("host")
    tls.join(mine)
    rng = random.Random(seed)
    spawn = multiprocessing.get_context("spawn")
    pipe, far = spawn.Pipe()
    honest_pipe, honest_far = spawn.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = spawn.Process(target=serve, args=(far, authority.issue("server"), folder))
        server.start()
        address = pipe.recv()
        addresses = [address, f"unix:{folder}/s.sock"]
        caller = spawn.Process(
            target=call_honestly, args=(honest_far, authority.issue("caller"), addresses)
        )
        caller.start()
        os.nice(19)  # whoever disturbs is on other hosts
        try:
            port = int(address.rpartition(":")[2])
            recorded = record(address, port)
            honest = Honest(honest_pipe)
            with honest.phase("warm"):
                time.sleep(1.0)
            pipe.send(True)
            before, members = pipe.recv()
            called = honest.calls
            with honest.phase("quiet"):
                time.sleep(3.0)
            with honest.phase("strangers"):
                begin = time.perf_counter()
                knock(port, connections, recorded, rng)
                knocking = time.perf_counter() - begin
            pipe.send(True)
            after, there = pipe.recv()
            accepted = (after - before - (honest.calls - called)) + (there - members)
            with honest.phase("quiet again"):
                time.sleep(3.0)
            with honest.phase("members"):
                begin = time.perf_counter()
                fuzz(addresses, num_frames, rng)
                fuzzing = time.perf_counter() - begin
            crashes = int(not server.is_alive()) + int(not caller.is_alive())
        finally:
            for end in (honest_pipe, pipe):
                with contextlib.suppress(OSError):
                    end.send(False)
            for process in (caller, server):
                process.join(10.0)
                process.kill()
    return {
        "connections": connections,
        "accepted": accepted,
        "frames": num_frames,
        "crashes": crashes,
        "honest calls": honest.calls,
        "seconds": {"knocking": knocking, "fuzzing": fuzzing},
        "median of honest calls, s [tls, unix]": honest.medians,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.credentials",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--connections", type=int, default=10_000, metavar="N")
    parser.add_argument("--frames", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure(options.connections, options.frames, options.seed)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            for key, each in value.items():
                print(f"{name}: {key}: {each}")
        else:
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
