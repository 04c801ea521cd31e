"""gRPC over a Unix socket, with pickled messages."""

from __future__ import annotations

import pickle
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from driver import Arrays, main, spin

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class GrpcClient:
    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._methods = {
            name: self._channel.unary_unary(
                f"/echo/{name}",
                request_serializer=lambda value: pickle.dumps(value, 5),
                response_deserializer=pickle.loads,
            )
            for name in ("echo", "fetch", "send")
        }

    def echo(self, value: int) -> int:
        return self._methods["echo"](value)

    def pipeline(self, count: int) -> None:
        for future in [self._methods["echo"].future(i) for i in range(count)]:
            future.result()

    def fetch(self, size: int) -> Any:
        return self._methods["fetch"](size)

    def send(self, payload: Any) -> int:
        return self._methods["send"](payload)

    def payload(self, size: int) -> Any:
        return np.ones(size // 4, np.float32)

    def close(self) -> None:
        self._channel.close()


class Grpc:
    client = GrpcClient
    max_clients = 64
    start_method = "fork"

    def new_address(self, folder: str) -> str:
        return f"unix:{folder}/socket"

    def serve(self, address: str, busy: bool) -> None:
        methods = {"echo": lambda x: x, "fetch": Arrays().fetch, "send": lambda array: array.nbytes}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                lambda value, context, method=method: method(value),
                request_deserializer=pickle.loads,
                response_serializer=lambda value: pickle.dumps(value, 5),
            )
            for name, method in methods.items()
        }
        server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
        server.add_insecure_port(address)
        server.start()
        print(address, flush=True)
        while busy:
            spin()
        server.wait_for_termination()


if __name__ == "__main__":
    main(Grpc())
