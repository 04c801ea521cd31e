"""What one transport is asked to do, and how long it takes: the same loops for every peer.

Runs inside a peer's own environment, so it imports nothing but the standard library and numpy. The
benchmark starts `python X_peer.py`, writes one JSON object a line (`{"do": "echo", "count": 99}`)
and reads one back. Each measurement is made in freshly forked clients, so that no transport's
threads are forked along, and with a server of its own, so that nothing else runs meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np


class Client(Protocol):
    """One client of an echo server, over some transport."""

    def echo(self, value: int) -> int:
        """Sends an int there and back."""

    def pipeline(self, count: int) -> None:
        """`count` echoes in flight at once; returns when all have."""

    def fetch(self, size: int) -> Any:
        """An array of `size` bytes, sent anew each time."""

    def send(self, payload: Any) -> int:
        """Sends what `payload` made; returns its size in bytes."""

    def payload(self, size: int) -> Any:
        """What `send` takes: an array or bytes, as the transport can."""

    def close(self) -> None: ...


class Peer(Protocol):
    """A transport: an echo server in a process of its own, and clients that connect to it."""

    client: Callable[[str], Client]
    """Connects to an address."""
    max_clients: int
    start_method: str
    """How client processes begin: "fork", or "spawn" where a transport cannot be forked."""

    def serve(self, address: str, busy: bool) -> None:
        """Serves until killed; `print`s its address once it does. `busy` computes meanwhile."""

    def new_address(self, folder: str) -> str:
        """An address for a server; `folder` is a new one for sockets."""


class Arrays:
    """What the echo servers send: one array a size, changed before each sending."""

    def __init__(self) -> None:
        self._arrays: dict[int, Any] = {}  # {bytes: float32 array}

    def fetch(self, size: int) -> Any:
        if size not in self._arrays:
            self._arrays = {size: np.ones(max(1, size // 4), np.float32)}
        self._arrays[size][0] += 1
        return self._arrays[size]


def spin() -> None:
    """A slice of the busy loop: some 10 ms of pure Python."""
    total = 0
    for i in range(200_000):
        total += i


def warm_up(client: Client, seconds: float = 0.3) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        client.echo(0)


def echo(client: Client, count: int) -> dict[str, float]:
    """Latencies of single calls, in seconds."""
    warm_up(client)
    seconds = np.empty(count)
    for i in range(count):
        start = time.perf_counter()
        client.echo(i)
        seconds[i] = time.perf_counter() - start
    return {"p50": float(np.quantile(seconds, 0.5)), "p99": float(np.quantile(seconds, 0.99))}


def pipeline(client: Client, count: int) -> dict[str, float]:
    """Calls a second with `count` in flight."""
    client.pipeline(count)
    start = time.perf_counter()
    client.pipeline(count)
    return {"rate": count / (time.perf_counter() - start)}


def fetch(client: Client, size: int, count: int) -> dict[str, float]:
    """Seconds for an array to arrive and for every byte of it to be read."""
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        read(client.fetch(size))
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds[1:]))}


def read(array: Any) -> None:
    """Reads every byte."""
    np.asarray(array).view(np.uint32).max()


def send(client: Client, size: int, count: int) -> dict[str, float]:
    """Seconds for an argument to arrive."""
    payload = client.payload(size)
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        if client.send(payload) != size:
            raise RuntimeError("the server saw another size")
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds[1:]))}


def many(client: Client, seconds: float, ready: Callable[[], object]) -> tuple[int, float]:
    """Echoes for `seconds`, once everybody is `ready`: calls made and the time they took."""
    warm_up(client, 0.05)
    ready()
    start = time.perf_counter()
    calls = 0
    while time.perf_counter() - start < seconds:
        client.echo(calls)
        calls += 1
    return calls, time.perf_counter() - start


def main(peer: Peer) -> None:
    """The life of `X_peer.py`: the benchmark's driver, or (with arguments) a server."""
    if len(sys.argv) > 1:
        peer.serve(sys.argv[1], busy=sys.argv[2] == "busy")
    else:
        serve_commands(lambda **command: measure(peer, **command))


def serve_commands(measure: Callable[..., dict[str, float]]) -> None:
    """Reads commands until the input ends; answers each with `{"ok": ...}` or `{"error": ...}`."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a transport prints must not look like a reply
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"ok": measure(**json.loads(line))}
        except Exception:
            answer = {"error": traceback.format_exc(limit=3)}
        print(json.dumps(answer), file=replies, flush=True)


@contextlib.contextmanager
def served(peer: Peer, busy: bool) -> Iterator[str]:
    """The address of a server that lives as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        address = peer.new_address(folder)
        command = [sys.executable, sys.argv[0], address, "busy" if busy else "idle"]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()  # a hint, for those with more than one process to end
            try:
                server.wait(0.2 if peer.start_method == "fork" else 10)
            except subprocess.TimeoutExpired:
                server.kill()
            server.wait()


def measure(
    peer: Peer, do: str, clients: int = 1, busy: bool = False, **how: Any
) -> dict[str, float]:
    """One measurement: a new server, and new clients in processes of their own."""
    if clients > peer.max_clients:
        return {}
    context: Any = multiprocessing.get_context(peer.start_method)
    barrier = context.Barrier(clients)
    results = context.SimpleQueue()
    with served(peer, busy) as address:
        task = (type(peer).client, address, do, how, barrier, results)
        processes = [context.Process(target=client_process, args=task) for _ in range(clients)]
        for process in processes:
            process.start()
        found = [results.get() for _ in processes]
        for process in processes:
            process.join(10)
            process.kill()
    wrong = [result for result in found if not isinstance(result, dict)]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {clients} clients failed: {wrong[0]}")
    return total(found)


def client_process(
    connect: Callable[[str], Client],
    address: str,
    do: str,
    how: dict[str, Any],
    barrier: Any,
    results: Any,
) -> None:
    """What one client does in a process of its own."""
    try:
        client = connect(address)
        try:
            results.put(as_client(client, do, barrier.wait, how))
        finally:
            client.close()
    except BaseException as error:
        barrier.abort()
        results.put(repr(error))
        raise


def as_client(
    client: Client, do: str, ready: Callable[[], object], how: dict[str, Any]
) -> dict[str, float]:
    """The part of one client in a measurement."""
    if do == "many":
        calls, seconds = many(client, how["seconds"], ready)
        return {"rate": calls / seconds}
    if do == "readers":  # several clients fetch at once: the slowest counts
        client.echo(0)
        ready()
        return fetch(client, how["size"], how["count"])
    loops: dict[str, Any] = {"echo": echo, "pipeline": pipeline, "fetch": fetch, "send": send}
    result: dict[str, float] = loops[do](client, **how)
    return result


def total(results: list[dict[str, float]]) -> dict[str, float]:
    """What several clients achieved together: rates add up, times are the slowest's."""
    return {
        key: sum(result[key] for result in results)
        if key == "rate"
        else max(result[key] for result in results)
        for key in results[0]
    }
