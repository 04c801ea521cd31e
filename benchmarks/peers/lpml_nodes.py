"""lpml `local_mp`: N nodes up, every one answering, and down again.

    lpml_nodes.py N IDLE [jax]    prints one JSON object: seconds, cpu_seconds, pss_bytes

As launchpad_nodes.py; with `jax` every node has run something on its own JAX backend before it
answers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from memory import descendants_pss

import lpml


class Plain:
    def ping(self) -> int:
        return os.getpid()


class WithJax(Plain):
    def __init__(self) -> None:
        import jax

        jax.numpy.ones(8).sum().block_until_ready()


class Checker:
    def __init__(self, nodes: list[Plain], idle: float, launcher: int, report: str) -> None:
        self._nodes = nodes
        self._idle = idle
        self._launcher = launcher
        self._report = Path(report)

    def run(self) -> None:
        pids = [node.ping() for node in self._nodes]
        up = time.monotonic()
        lpml.context().wait(self._idle)
        pss = descendants_pss(self._launcher, without=os.getpid()) if self._idle else 0
        self._report.write_text(json.dumps({"up": up, "nodes": len(set(pids)), "pss_bytes": pss}))
        lpml.context().stop_program("all answered")


def main(count: int, idle: float, service: type[Plain]) -> None:
    report = f"/tmp/lpml-bench-{os.getpid()}.json"
    program = lpml.Program("plain")
    nodes = [program.add_node(lpml.Node(service), "node") for _ in range(count)]
    program.add_node(lpml.Node(Checker, nodes, idle, os.getpid(), report), "checker")
    start = time.monotonic()
    lpml.launch(program, "local_mp", terminal=False).wait()
    end = time.monotonic()
    seen = json.loads(Path(report).read_text())
    Path(report).unlink()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    assert seen["nodes"] == count, seen
    times = {"seconds": end - start - idle, "up_seconds": seen["up"] - start, "cpu_seconds": cpu}
    print(json.dumps({**times, "pss_bytes": seen["pss_bytes"]}))


if __name__ == "__main__":
    if sys.argv[3:] == ["jax"]:
        import jax  # noqa: F401 (as a program that uses it does)

        main(int(sys.argv[1]), float(sys.argv[2]), WithJax)
    else:
        main(int(sys.argv[1]), float(sys.argv[2]), Plain)
