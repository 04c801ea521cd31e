"""A Ray cluster of several nodes on this machine, for all tests of this folder."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import final

import pytest

from lpml.testing.leaks import Snapshot

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]

_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 16, "include_dashboard": False})
others = [cluster.add_node(num_cpus=16) for _ in range(int(sys.argv[1]) - 1)]
print(cluster.address, flush=True)
for line in sys.stdin:
    gone = next(node for node in others if node.node_id in line.split())
    cluster.remove_node(gone, allow_graceful=False)
    print("gone", gone.node_id, flush=True)
cluster.shutdown()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the suites that are repeated here, only what is launched on the cluster."""
    here = str(Path(__file__).parent)
    repeated = [item for item in items if str(item.path).startswith(here)]
    for item in repeated:
        fixtures = getattr(item, "fixturenames", ())
        if item.path.name == "test_suites.py" and not {"start", "launcher"} & set(fixtures):
            items.remove(item)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes, to which this process is connected."""
    import ray

    for made in own_cluster(2):
        ray.init(made.address, log_to_driver=False, configure_logging=False)
        yield made.address
        ray.shutdown()


@final
class OwnCluster:
    """A cluster in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._line(":")

    def remove(self, nodes: list[str]) -> str:
        """Takes one of these nodes away, without a word, and says which."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(nodes) + "\n")
        self._process.stdin.flush()
        return self._line("gone").split()[1]

    def _line(self, word: str) -> str:
        assert self._process.stdout is not None
        return next(line for line in self._process.stdout if word in line).strip()


def own_cluster(nodes: int) -> Iterator[OwnCluster]:
    """A cluster of so many nodes with 16 cores each, as long as the iterator lives."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdin is not None
        try:
            yield OwnCluster(process)
        finally:
            process.stdin.close()
            process.wait(30.0)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Nothing of lpml is left. Ray's own threads and descriptors in this process come and go."""
    before = Snapshot.take()
    yield
    pause, end = threading.Event(), time.monotonic() + 5.0
    while (left := _ours(before)) and time.monotonic() < end:
        pause.wait(0.05)
    assert not left


def _ours(before: Snapshot) -> list[str]:
    left = Snapshot.take().since(before)
    return [line for line in left if "thread lpml" in line or line.startswith(("socket", "shared"))]
