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
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.strangers import Recorder, fuzz, knock
from lpml import wire
from lpml.context import Context
from lpml.service import interface_of
from lpml.wire import tls
from lpml.wire.authority import Authority
from lpml.wire.tls import Identity

PAUSE = 0.001  # seconds between two honest calls


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


def record(address: str, port: int) -> bytes:
    """Everything that a member says from its first handshake to the end of its first call."""
    recorder = Recorder(port)
    client = wire.connect(
        address.replace(f":{port}", f":{recorder.port}"), interface_of(Echo), node="server"
    )
    client.echo(1)
    wire.close(client)
    return recorder.said


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
