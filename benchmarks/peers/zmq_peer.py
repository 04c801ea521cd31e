"""ZeroMQ over ipc: a ROUTER that answers DEALERs, pickle 5 with buffers as extra frames."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import zmq
from driver import Arrays, main, spin


def dumps(value: object) -> list[Any]:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return [head, *buffers]


def loads(frames: list[Any]) -> Any:
    return pickle.loads(frames[0].buffer, buffers=[frame.buffer for frame in frames[1:]])


class ZmqClient:
    def __init__(self, address: str) -> None:
        self._socket = zmq.Context().socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.connect(address)

    def _call(self, name: str, value: object) -> Any:
        self._socket.send_multipart(dumps((name, value)), copy=False)
        return loads(self._socket.recv_multipart(copy=False))

    def echo(self, value: int) -> int:
        return self._call("echo", value)

    def pipeline(self, count: int) -> None:
        for i in range(count):
            self._socket.send_multipart(dumps(("echo", i)))
        for _ in range(count):
            loads(self._socket.recv_multipart(copy=False))

    def fetch(self, size: int) -> Any:
        return self._call("fetch", size)

    def send(self, payload: Any) -> int:
        return self._call("send", payload)

    def payload(self, size: int) -> Any:
        return np.ones(size // 4, np.float32)

    def close(self) -> None:
        self._socket.close(0)


class Zmq:
    client = ZmqClient
    max_clients = 64
    start_method = "fork"

    def new_address(self, folder: str) -> str:
        return f"ipc://{folder}/socket"

    def serve(self, address: str, busy: bool) -> None:
        methods = {"echo": lambda x: x, "fetch": Arrays().fetch, "send": lambda array: array.nbytes}
        socket = zmq.Context().socket(zmq.ROUTER)
        socket.set_hwm(0)
        socket.bind(address)

        def loop() -> None:
            while True:
                identity, *frames = socket.recv_multipart(copy=False)
                name, value = loads(frames)
                socket.send_multipart([identity, *dumps(methods[name](value))], copy=False)

        thread = threading.Thread(target=loop)
        thread.start()
        print(address, flush=True)
        while busy:
            spin()
        thread.join()


if __name__ == "__main__":
    main(Zmq())
