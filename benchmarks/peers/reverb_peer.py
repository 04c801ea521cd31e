"""dm-reverb: items written and sampled a second, with its server in another process or in this one.

`python reverb_peer.py` reads one JSON object a line and answers each with one; `python
reverb_peer.py serve ...` is the server. An item is one step of four columns, chunks have one step.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import reverb
import tensorflow as tf
from driver import serve_commands

BATCH = 256
SHAPES = {"cartpole": ((4,), np.float32), "84x84x4": ((84, 84, 4), np.uint8)}


def example(kind: str) -> dict[str, Any]:
    """One step."""
    shape, dtype = SHAPES[kind]
    return {
        "observation": np.random.default_rng(0).integers(0, 255, shape).astype(dtype),
        "action": np.int32(0),
        "reward": np.float32(1),
        "discount": np.float32(1),
    }


def make_server(kind: str, sampler: str, size: int, port: int) -> Any:
    selectors = reverb.selectors
    signature = {
        name: tf.TensorSpec((1, *np.shape(value)), np.asarray(value).dtype)
        for name, value in example(kind).items()
    }
    table = reverb.Table(
        name="t",
        sampler=selectors.Uniform() if sampler == "uniform" else selectors.Prioritized(0.6),
        remover=selectors.Fifo(),
        max_size=size,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature=signature,
    )
    return reverb.Server([table], port=port)


@contextlib.contextmanager
def served(kind: str, sampler: str, size: int, where: str) -> Iterator[tuple[Any, str]]:
    """A client and the address of its server."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"localhost:{port}"
    if where == "here":
        server = make_server(kind, sampler, size, port)
        try:
            yield reverb.Client(address), address
        finally:
            server.stop()
        return
    words = [sys.executable, __file__, "serve", kind, sampler, str(size), str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield reverb.Client(address), address
        finally:
            process.kill()


def write(client: Any, step: dict[str, Any], items: int) -> None:
    """Items of one step, at most five under way."""
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for _ in range(items):
            writer.append(step)
            history = {name: column[-1:] for name, column in writer.history.items()}
            writer.create_item("t", 1.0, history)
            writer.flush(block_until_num_items=5)


def sample(client: Any) -> None:
    """A batch as its client gives it: items one by one, to be stacked."""
    found = [item[0].data for item in client.sample("t", BATCH)]
    for name in range(len(found[0])):
        np.stack([item[name] for item in found])


def dataset(address: str) -> Callable[[], Any]:
    """Takes batches out of its prefetching TensorFlow dataset."""
    steps = reverb.TrajectoryDataset.from_table_signature(
        server_address=address, table="t", max_in_flight_samples_per_worker=2 * BATCH
    )
    batches = steps.batch(BATCH, drop_remainder=True).prefetch(2).as_numpy_iterator()
    return lambda: next(batches)


def rate(function: Callable[[], Any], items: int, seconds: float) -> float:
    """Items a second over at least `seconds`, after one call that is not counted."""
    function()
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        function()
        calls += 1
    return calls * items / spent


def measure(kind: str, sampler: str, size: int, where: str, seconds: float) -> dict[str, float]:
    """Items a second: written, sampled by the client, and taken out of the dataset."""
    step = example(kind)
    with served(kind, sampler, size, where) as (client, address):
        found = {"insert": rate(lambda: write(client, step, 1000), 1000, seconds)}
        write(client, step, 2000)
        found["sample"] = rate(lambda: sample(client), BATCH, seconds)
        found["dataset"] = rate(dataset(address), BATCH, seconds)
    return found


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        kind, sampler, size, port = sys.argv[2:]
        server = make_server(kind, sampler, int(size), int(port))
        print("ready", flush=True)
        server.wait()
    else:
        serve_commands(measure)


if __name__ == "__main__":
    main()
