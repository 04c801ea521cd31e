"""A Ray cluster of several nodes on this machine, for all tests of this folder."""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpml.testing.leaks import Snapshot

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]

_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 16, "include_dashboard": False})
for _ in range(int(sys.argv[1]) - 1):
    cluster.add_node(num_cpus=16)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the suites that are repeated here, only what is launched on the cluster."""
    here = str(Path(__file__).parent)
    repeated = [item for item in items if str(item.path).startswith(here)]
    for item in repeated:
        if item.path.name == "test_suites.py" and "start" not in getattr(item, "fixturenames", ()):
            items.remove(item)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of one node, to which this process is connected."""
    import ray

    for address in _cluster(1):
        ray.init(address, log_to_driver=False, configure_logging=False)
        yield address
        ray.shutdown()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Nothing of lpml is left. Ray's own threads and descriptors in this process come and go."""
    before = Snapshot.take()
    yield
    end = time.monotonic() + 5.0
    while (left := _ours(before)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def _ours(before: Snapshot) -> list[str]:
    left = Snapshot.take().since(before)
    return [line for line in left if "thread lpml" in line or line.startswith(("socket", "shared"))]


def _cluster(nodes: int) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RAY_DEDUP_LOGS": "0"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while ":" not in (address := process.stdout.readline()) and process.poll() is None:
                continue
            yield address.strip()
        finally:
            process.stdin.close()
            process.wait(30.0)
