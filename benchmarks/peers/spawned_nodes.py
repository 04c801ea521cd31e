"""Interpreters started one by one, each with a live JAX backend: what a launcher without a
forkserver does.

    spawned_nodes.py N    prints one JSON object: up_seconds
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

NODE = """
import sys, jax
jax.numpy.ones(8).sum().block_until_ready()
print("up", flush=True)
sys.stdin.read()
"""


def main(count: int) -> None:
    start = time.monotonic()
    command = [sys.executable, "-c", NODE]
    nodes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    for node in nodes:
        assert node.stdout is not None
        assert node.stdout.readline() == b"up\n"
    up = time.monotonic()
    for node in nodes:
        node.communicate()
    print(json.dumps({"up_seconds": up - start}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
