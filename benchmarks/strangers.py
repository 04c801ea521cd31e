"""Who disturbs a server: strangers who knock at its door, and members who send it rubbish."""

from __future__ import annotations

import contextlib
import pickle
import random
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from lpml.wire import frames
from lpml.wire.authority import Authority
from lpml.wire.sockets import dial
from lpml.wire.tls import Identity

ARGUMENTS = pickle.dumps((1,))
MARK = 0xFFFFFFFF  # the id of the call by which a fuzzing member knows how far the server is
PER_CONNECTION = 100  # frames that a member sends at most before it comes anew


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
