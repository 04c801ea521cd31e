"""Between hosts: calls over TLS and a snapshot for many readers, beside Ray in the same cluster.

    python -m benchmarks.cluster [--repeats 5] [--only echo]

A Ray cluster of two nodes on this machine, so both sides share its cores, and the network is its
loopback. lpml's nodes are Ray actors there, and Ray's own are plain actors. Needs the extra `ray`.

- echo: a small value to a server on the other host and back.
- 100 MiB to 8 readers: new parameters are published, and four readers on either host look at them.
  "Ray, a put per reader" is what each reader's own `ray.put` and `ray.get` come to; "Ray, one put"
  hands one reference to all, so that its object store carries the value to the other host once.
- 100 MiB returned: by one call, over TLS, to a host that has no relay; beside a bare TLS socket
  there is no Ray to compare with, so Ray's is an actor's result.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import lpml
from benchmarks.common import Measure, arguments, report

READERS = 8
CALLS = 1000
NUMBERS = 100 * 2**20 // 4


def make() -> dict[str, Any]:
    """100 MiB."""
    return {"w": np.ones(NUMBERS, np.float32)}


def look(value: Any) -> float:
    """Touches every page a little."""
    return float(value["w"][::1000].sum())


def timed(call: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Server:
    """Echoes, and publishes parameters."""

    def __init__(self) -> None:
        self._plain = make()
        self._shared = lpml.Shared(self._plain)

    def echo(self, value: Any) -> Any:
        return value

    def publish(self) -> None:
        self._shared = lpml.Shared(self._plain)

    def pull(self) -> lpml.Shared[Any]:
        return self._shared

    def whole(self) -> Any:
        return self._plain


class Reader:
    """On one of the hosts."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def host(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def echo(self) -> float:
        """Median seconds of a call."""
        self._server.echo(0)
        return statistics.median(timed(lambda: self._server.echo(1)) for _ in range(CALLS))

    def pull(self) -> float:
        return look(self._server.pull().value)

    def whole(self) -> float:
        return timed(lambda: self._server.whole())


@ray.remote(num_cpus=0)
class RayServer:
    """The same as an actor."""

    def __init__(self) -> None:
        self._plain = make()

    def echo(self, value: Any) -> Any:
        return value

    def whole(self) -> Any:
        return self._plain


@ray.remote(num_cpus=0)
class RayReader:
    """The same as an actor."""

    def echo(self, server: Any) -> float:
        ray.get(server.echo.remote(0))
        calls = (timed(lambda: ray.get(server.echo.remote(1))) for _ in range(CALLS))
        return statistics.median(calls)

    def pull(self, references: list[Any]) -> float:
        return look(ray.get(references[0]))

    def whole(self, server: Any) -> float:
        return timed(lambda: ray.get(server.whole.remote()))


def program() -> lpml.Program:
    """A server on one host, and readers on both in turn."""
    p = lpml.Program("cluster")
    server = p.add_node(lpml.Node(Server), label="server")
    with p.group("reader", placement="spread"):
        for _ in range(READERS):
            p.add_node(lpml.Node(Reader, server))
    return p


def host_of(run: lpml.Run, index: int) -> str:
    """Names the host of a node."""
    return run.status().nodes[index].address.rpartition("|")[0].rpartition("@")[2]


def measure(run: lpml.Run, hosts: list[str], repeats: int, only: str) -> list[Measure]:
    """All measures, the sides in turn."""
    server, readers = run.client("server/0"), [run.client(f"reader/{i}") for i in range(READERS)]
    far = next(r for i, r in enumerate(readers) if host_of(run, i + 1) != host_of(run, 0))

    def on(host: str) -> Any:
        return NodeAffinitySchedulingStrategy(host, soft=False)

    ray_server: Any = RayServer.options(scheduling_strategy=on(hosts[0])).remote()
    ray_readers: list[Any] = [
        RayReader.options(scheduling_strategy=on(hosts[i % 2])).remote() for i in range(READERS)
    ]
    value = make()

    def lpml_all() -> None:
        server.publish()
        for future in [lpml.future(reader.pull) for reader in readers]:
            future.result()

    def ray_each() -> None:
        ray.get([reader.pull.remote([ray.put(value)]) for reader in ray_readers])

    def ray_once() -> None:
        reference = ray.put(value)
        ray.get([reader.pull.remote([reference]) for reader in ray_readers])

    call, one_put, each_put = "ray call", "ray, one put", "ray, a put per reader"
    echo = Measure("echo between hosts", "s", target=0.5, against=call)
    pull = Measure("100 MiB to 8 readers", "s", target=0.5, against=each_put)
    whole = Measure("100 MiB returned to another host", "s", against=call)
    for _ in range(repeats):
        if only in echo.name:
            echo.add("lpml", far.echo())
            echo.add(call, ray.get(ray_readers[1].echo.remote(ray_server)))
        if only in pull.name:
            pull.add("lpml", timed(lpml_all))
            pull.add(each_put, timed(ray_each))
            pull.add(one_put, timed(ray_once))
        if only in whole.name:
            whole.add("lpml", far.whole())
            whole.add(call, ray.get(ray_readers[1].whole.remote(ray_server)))
    return [each for each in (echo, pull, whole) if each.values]


def main() -> None:
    options = arguments(__doc__, 5).parse_args()
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": READERS, "include_dashboard": False}
    )
    other = cluster.add_node(num_cpus=READERS)
    ray.init(cluster.address, log_to_driver=False)
    try:
        hosts = [ray.get_runtime_context().get_node_id(), other.node_id]
        with (
            tempfile.TemporaryDirectory() as folder,
            lpml.deadline(300.0),
            lpml.launch(
                program(), "ray", address=cluster.address, directory=folder, terminal=False
            ) as run,
        ):
            measures = measure(run, hosts, options.repeats, options.only)
    finally:
        ray.shutdown()
        cluster.shutdown()
    report("between two hosts", measures, options.json)


if __name__ == "__main__":
    main()
