"""Launchpad `local_mp`: N plain nodes up, every one answering, and down again.

    launchpad_nodes.py N IDLE    prints one JSON object: seconds, cpu_seconds, pss_bytes

`IDLE` seconds pass between the last answer and the measuring of memory; 0 measures none.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

import launchpad as lp
from absl import app, flags
from memory import descendants_pss

REPORT = "LPML_BENCH_REPORT"  # where the checking node leaves what it saw


class Plain:
    def ping(self) -> int:
        return os.getpid()


class Checker:
    def __init__(self, nodes: list, idle: float, launcher: int) -> None:
        self._nodes = nodes
        self._idle = idle
        self._launcher = launcher

    def run(self) -> None:
        pids = [node.ping() for node in self._nodes]
        up = time.monotonic()
        time.sleep(self._idle)
        pss = descendants_pss(self._launcher, without=os.getpid()) if self._idle else 0
        with open(os.environ[REPORT], "w") as file:
            json.dump({"up": up, "nodes": len(set(pids)), "pss_bytes": pss}, file)
        lp.stop()


def main(argv: list[str]) -> None:
    count, idle = int(argv[1]), float(argv[2])
    path = os.environ[REPORT] = f"/tmp/lpml-bench-{os.getpid()}.json"
    program = lp.Program("plain")
    with program.group("node"):
        nodes = [program.add_node(lp.CourierNode(Plain)) for _ in range(count)]
    with program.group("checker"):
        program.add_node(lp.PyClassNode(Checker, nodes, idle, os.getpid()))
    start = time.monotonic()
    launcher = lp.launch(program, launch_type="local_mp", terminal="current_terminal")
    launcher.wait()
    end = time.monotonic()
    with open(path) as file:
        seen = json.load(file)
    os.remove(path)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    assert seen["nodes"] == count, seen
    report = {"seconds": end - start - idle, "up_seconds": seen["up"] - start, "cpu_seconds": cpu}
    print(json.dumps({**report, "pss_bytes": seen["pss_bytes"]}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    app.run(main, argv=sys.argv)
