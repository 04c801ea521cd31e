"""Courier, the transport of Launchpad: `dm-launchpad` 0.5.2."""

from __future__ import annotations

from typing import Any

import courier
import portpicker
from driver import Arrays, main, spin


class CourierClient:
    def __init__(self, address: str) -> None:
        self._client = courier.Client(address)

    def echo(self, value: int) -> int:
        return self._client.echo(value)

    def pipeline(self, count: int) -> None:
        for future in [self._client.futures.echo(i) for i in range(count)]:
            future.result()

    def fetch(self, size: int) -> Any:
        return self._client.fetch(size)

    def send(self, payload: bytes) -> int:
        return self._client.send(payload)

    def payload(self, size: int) -> bytes:
        return bytes(size)  # calls with array arguments never return

    def close(self) -> None: ...


class Courier:
    client = CourierClient
    max_clients = 64
    start_method = "fork"

    def new_address(self, folder: str) -> str:
        return f"localhost:{portpicker.pick_unused_port()}"

    def serve(self, address: str, busy: bool) -> None:
        server = courier.Server("echo", int(address.split(":")[1]))
        server.Bind("echo", lambda value: value)
        server.Bind("fetch", Arrays().fetch)
        server.Bind("send", len)
        server.Start()
        print(address, flush=True)
        while busy:
            spin()
        server.Join()


if __name__ == "__main__":
    main(Courier())
