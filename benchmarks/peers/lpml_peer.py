"""lpml itself: an echo service and its callers as nodes of a program on processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from driver import Arrays, as_client, serve_commands, spin, total

import lpml
from lpml import wire
from lpml.context import Context
from lpml.service import interface_of
from lpml.wire import tls


class Echo:
    def __init__(self) -> None:
        self._arrays = Arrays()
        self._shared: dict[int, lpml.Shared[Any]] = {}  # {bytes: published array}

    def echo(self, value: int) -> int:
        return value

    def fetch(self, size: int) -> Any:
        return self._arrays.fetch(size)

    def shared(self, size: int) -> lpml.Shared[Any]:
        if size not in self._shared:
            self._shared = {size: lpml.Shared(np.ones(size // 4, np.float32))}
        return self._shared[size]

    def send(self, payload: Any) -> int:
        return int(payload.nbytes)


class BusyEcho(Echo):
    """Computes in Python while it serves."""

    def run(self) -> None:
        while not lpml.context().should_stop:
            spin()


class Gate:
    """Lets callers through once all have come."""

    def __init__(self, callers: int) -> None:
        self._callers = callers
        self._come = lpml.context().clock.condition()
        self._count = 0

    @lpml.concurrent
    def wait(self) -> None:
        with self._come:
            self._count += 1
            self._come.notify_all()
            self._come.wait_for(lambda: self._count >= self._callers)


class Caller:
    """One client: what the other peers do in a forked process, it does as a node."""

    def __init__(self, server: Echo, gate: Gate, shared: bool) -> None:
        self._gate = gate
        self._client = LpmlClient(server, shared)

    @lpml.concurrent
    def measure(self, do: str, how: dict[str, Any]) -> dict[str, float]:
        return as_client(self._client, do, self._gate.wait, how)


class LpmlClient:
    def __init__(self, server: Echo, shared: bool) -> None:
        self._server = server
        self._shared = shared
        self.echo = server.echo

    def pipeline(self, count: int) -> None:
        for future in [lpml.future(self._server.echo, i) for i in range(count)]:
            future.result()

    def fetch(self, size: int) -> Any:
        return self._server.shared(size).value if self._shared else self._server.fetch(size)

    def send(self, payload: Any) -> int:
        return self._server.send(payload)

    def payload(self, size: int) -> Any:
        return np.ones(size // 4, np.float32)

    def close(self) -> None: ...


def program(clients: int, busy: bool, shared: bool) -> lpml.Program:
    p = lpml.Program("echo")
    server = p.add_node(lpml.Node(BusyEcho if busy else Echo), "server")
    gate = p.add_node(lpml.Node(Gate, clients), "gate")
    for _ in range(clients):
        p.add_node(lpml.Node(Caller, server, gate, shared), "caller")
    return p


def measure(
    do: str,
    clients: int = 1,
    busy: bool = False,
    shared: bool = False,
    launch: str = "local_mp",
    over_tls: bool = False,
    **how: Any,
) -> dict[str, float]:
    """One measurement, in a run of its own."""
    if over_tls:
        return measure_over_tls(do, shared, how)
    with lpml.launch(program(clients, busy, shared), launch, terminal=False) as run:
        callers = [run.client(f"caller/{i}") for i in range(clients)]
        with lpml.deadline(600):
            return total([f.result() for f in lpml.broadcast(callers, Caller.measure, do, how)])


def serve_over_tls(pipe: Any, identity: Any) -> None:
    """The process of a server that is called as from another host. Ends with `pipe`."""
    tls.join(identity)
    dispatcher = wire.Dispatcher(Echo(), interface_of(Echo), Context("server", "server"), "server")
    remote = tls.listen_tcp("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        server = wire.Server(dispatcher, wire.listen(Path(folder) / "s"), (remote, identity))
        server.start()
        pipe.send(tls.address_of(remote, identity))
        with contextlib.suppress(EOFError):
            pipe.recv()
        server.close()


def measure_over_tls(do: str, shared: bool, how: dict[str, Any]) -> dict[str, float]:
    """One measurement of a caller and a server that are members of a run; {} without the extra."""
    try:
        from lpml.wire.authority import Authority
    except lpml.UsageError:
        return {}
    identity = Authority("benchmark").issue("host")
    tls.join(identity)
    spawn = multiprocessing.get_context("spawn")
    pipe, far = spawn.Pipe()
    server = spawn.Process(target=serve_over_tls, args=(far, identity))
    server.start()
    far.close()
    try:
        client = wire.connect(pipe.recv(), interface_of(Echo), node="server", caller="client")
        return as_client(LpmlClient(client, shared), do, lambda: None, how)
    finally:
        pipe.close()
        server.join()
        tls.leave(identity)


if __name__ == "__main__":
    serve_commands(measure)
