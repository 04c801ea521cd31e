"""Ray actors on one machine."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from typing import Any

# The cluster of a benchmark has a token of its own, which its server and its clients inherit.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import numpy as np
import ray
from driver import Arrays, main, spin


@ray.remote(num_cpus=0, max_concurrency=2)
class Echo:
    def __init__(self) -> None:
        self._arrays = Arrays()

    def echo(self, value: int) -> int:
        return value

    def fetch(self, size: int) -> Any:
        return self._arrays.fetch(size)

    def send(self, payload: Any) -> int:
        return int(payload.nbytes)

    def spin(self) -> None:
        while True:
            spin()


class RayClient:
    def __init__(self, address: str) -> None:
        ray.init(
            address=address,
            namespace="bench",
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.2",
        )
        self._actor = ray.get_actor("echo")

    def echo(self, value: int) -> int:
        return ray.get(self._actor.echo.remote(value))

    def pipeline(self, count: int) -> None:
        ray.get([self._actor.echo.remote(i) for i in range(count)])

    def fetch(self, size: int) -> Any:
        return ray.get(self._actor.fetch.remote(size))

    def send(self, payload: Any) -> int:
        return ray.get(self._actor.send.remote(payload))

    def payload(self, size: int) -> Any:
        return np.ones(size // 4, np.float32)

    def close(self) -> None:
        ray.shutdown()


class Ray:
    client = RayClient
    max_clients = 16  # each client is a driver of the cluster, with processes of its own
    start_method = "spawn"

    def new_address(self, folder: str) -> str:
        return "127.0.0.2"  # Ray leaves 127.0.0.1 for the address of the machine's network

    def serve(self, address: str, busy: bool) -> None:
        context = ray.init(
            num_cpus=2,
            include_dashboard=False,
            logging_level=logging.ERROR,
            object_store_memory=4 << 30,
            namespace="bench",
            _node_ip_address=address,
        )
        actor = Echo.options(name="echo").remote()
        ray.get(actor.echo.remote(0))
        spinning = actor.spin.remote() if busy else None
        print(context.address_info["address"], flush=True)
        sys.stdin.read()
        del spinning


if __name__ == "__main__":
    main(Ray())
