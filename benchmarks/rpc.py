"""Calls between processes: latency, throughput, arrays. lpml and its peers, taken in turn.

    python -m benchmarks.rpc --only echo --peers courier,zmq

Every measurement has a new server and new clients, and nothing else runs meanwhile. Ray, which
takes seconds to start, is measured in the first two repetitions only.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import Any

from benchmarks.board import Board, arguments
from benchmarks.common import Measure, Peer, awake, installed

MIB = 2**20
SIZES = {"1 KiB": 2**10, "64 KiB": 2**16, "1 MiB": MIB, "16 MiB": 16 * MIB, "100 MiB": 100 * MIB}
SLOW_TO_START = {"ray": 2}  # {peer: repetitions}


@dataclass
class Case:
    """One thing that every peer is asked to do, and the measures that come of it."""

    command: dict[str, Any]
    measures: dict[str, Measure]  # {key of the answer: measure}
    for_lpml: dict[str, Any] = field(default_factory=dict)
    """What lpml is told besides."""
    cores_awake: bool = False


def latency(name: str, count: int, p50: float | None, p99: float | None, **command: Any) -> Case:
    awake = bool(command.pop("cores_awake", False))
    measures = {
        "p50": Measure(f"{name}, p50", "s", target=p50),
        "p99": Measure(f"{name}, p99", "s", target=p99),
    }
    return Case({"do": "echo", "count": count, **command}, measures, cores_awake=awake)


def rate(name: str, target: float | None, **command: Any) -> Case:
    return Case(command, {"rate": Measure(name, "/s", lower_is_better=False, target=target)})


def duration(name: str, target: float | None, for_lpml: dict[str, Any], **command: Any) -> Case:
    return Case(command, {"seconds": Measure(name, "s", target=target)}, for_lpml)


def cases() -> list[Case]:
    """Everything that is measured, in the order of the table."""
    found = [
        latency("echo", 3000, 0.7, 0.5),
        latency("echo, cores kept awake", 3000, 0.7, 0.5, cores_awake=True),
        latency("echo, server computes in Python", 1000, None, None, busy=True),
        rate("pipelined futures", 2.5, do="pipeline", count=3000),
    ]
    for clients in (1, 4, 8, 16, 64):
        target = 2.0 if clients in (4, 16, 64) else None
        name = f"{clients} client{'s' * (clients > 1)} on one server"
        found.append(rate(name, target, do="many", clients=clients, seconds=1.5))
    sizes = {**SIZES, "1 GiB": 2**30}
    for label, size in sizes.items():
        count = max(2, min(200, 2 * 2**30 // size // 20))
        sixth = 1 / 6 if label == "100 MiB" else None
        fetch = {"do": "fetch", "size": size, "count": count}
        found.append(duration(f"{label} array returned", sixth, {}, **fetch))
        send = {"do": "send", "size": size, "count": count}
        found.append(duration(f"{label} array as argument", sixth, {}, **send))
    shared = {"shared": True}
    fetch = {"do": "fetch", "size": 100 * MIB, "count": 5}
    found.append(duration("100 MiB Shared, every byte read", 1 / 15, shared, **fetch))
    readers = {"do": "readers", "clients": 8, "size": 100 * MIB, "count": 3}
    found.append(duration("100 MiB Shared to 8 readers", 1 / 15, shared, **readers))
    return found


def in_threads() -> Case:
    """A call on `local_mt`, where there is no peer."""
    measures = {
        "p50": Measure("echo on local_mt (≤ 10 µs), p50", "s"),
        "p99": Measure("echo on local_mt, p99", "s"),
    }
    return Case({"do": "echo", "count": 5000}, measures, {"launch": "local_mt"})


def over_tls() -> list[Case]:
    """Calls as between two hosts, but over the loopback interface; needs the extra ray."""
    tls = {"over_tls": True}
    measures = {
        "p50": Measure("echo over TLS, p50", "s"),
        "p99": Measure("echo over TLS, p99", "s"),
    }
    fetch = {"do": "fetch", "size": 100 * MIB, "count": 5}
    return [
        Case({"do": "echo", "count": 3000}, measures, tls),
        duration("100 MiB array returned over TLS", None, tls, **fetch),
    ]


def measure(case: Case, peer: Peer) -> None:
    """One repetition of one case by one peer."""
    command = {**case.command, **(case.for_lpml if peer.name == "lpml" else {})}
    with awake(os.cpu_count() or 1) if case.cores_awake else contextlib.nullcontext():
        found = peer.ask(**command)
    for key, value in (found or {}).items():
        case.measures[key].add(peer.name, value)


def main() -> None:
    parser = arguments(__doc__, repetitions=5)
    parser.add_argument(
        "--peers",
        default="courier,grpc,zmq,ray",
        help="with commas between (default: %(default)s); '' measures lpml alone",
    )
    options = parser.parse_args()
    alone = [in_threads(), *over_tls()]
    every = [*cases(), *alone]
    measures = [measure for case in every for measure in case.measures.values()]
    with Board("rpc", measures, options) as board, contextlib.ExitStack() as stack:
        names = installed([name for name in options.peers.split(",") if name])
        peers = [Peer(name) for name in ("lpml", *names)]
        for peer in peers:
            stack.callback(peer.close)
        for repeat in board.repetitions():
            for case in every:
                if not board.wants(*case.measures.values()):
                    continue
                for peer in peers[:1] if case in alone else peers:
                    if repeat < SLOW_TO_START.get(peer.name, options.repetitions):
                        measure(case, peer)
                board.tell(*case.measures.values())


if __name__ == "__main__":
    main()
