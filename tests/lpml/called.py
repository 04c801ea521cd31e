"""A service that is called in every way, and the ways: fixtures for tests of calls."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.context import Context
from lpml.service import interface_of


class Own(Exception):
    """Has an attribute of its own."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Service:
    """What the tests call. Its state is seen from outside."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.go = threading.Event()
        self.entered = threading.Event()
        self.ended = threading.Event()
        self.held = threading.Semaphore(0)

    def echo(self, value: Any = None) -> Any:
        return value

    def total(self, array: Any, *, scale: float = 1.0) -> float:
        return float(array.sum()) * scale

    def fail(self, code: int) -> None:
        raise Own(code)

    def key(self) -> None:
        raise KeyError("a\nb")

    def unsendable(self) -> Any:
        return threading.Lock()

    def fail_unsendably(self) -> None:
        error = ValueError("with a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    def count(self, n: int, size: int = 0) -> Iterator[Any]:
        try:
            for i in range(n):
                self.made += 1
                yield np.full(size, i) if size else i
        finally:
            self.closed.set()

    def break_after(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise Own(n)

    @lpml.concurrent
    def numbers(self, n: int) -> Iterator[int]:
        yield from range(n)

    @lpml.concurrent
    def hold(self) -> bool:
        self.held.release()
        try:
            return lpml.context().wait(60)
        finally:
            self.ended.set()

    @lpml.concurrent
    def relay(self, other: Any) -> Any:
        return other.hold()

    @lpml.concurrent
    def until_go(self, value: int) -> int:
        self.go.wait(20)
        return value

    @lpml.batched(max_size=3, timeout=0.02)
    def double(self, x: Any) -> Any:
        return 2 * x

    def ask(self, other: Any, value: int) -> int:
        answer: int = other.echo(value)
        return answer + 1

    def listing(self) -> list[int]:
        return [1, 2, 3]


INTERFACE = interface_of(Service)


@contextmanager
def over_a_connection(service: Service) -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="lw") as folder:
        listener = wire.listen(Path(folder) / "s")
        dispatcher = wire.Dispatcher(service, INTERFACE, Context("node/0", "node"), "node/0")
        server = wire.Server(dispatcher, listener)
        server.start()
        client = wire.connect(
            f"unix:{folder}/s", INTERFACE, node="node/0", caller="test", log="node.log"
        )
        try:
            yield client
        finally:
            wire.close(client)
            server.close()


@contextmanager
def in_one_process(service: Service) -> Iterator[Any]:
    dispatcher = wire.Dispatcher(service, INTERFACE, Context("node/0", "node"), "node/0")
    yield wire.local(dispatcher, caller="test")


@contextmanager
def as_it_is(service: Service) -> Iterator[Any]:
    yield service


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(params=[over_a_connection, in_one_process, as_it_is])
def any_client(request: pytest.FixtureRequest, service: Service) -> Iterator[Any]:
    with request.param(service) as client:
        yield client


@pytest.fixture(params=[over_a_connection, in_one_process])
def client(request: pytest.FixtureRequest, service: Service) -> Iterator[Any]:
    with request.param(service) as client:
        yield client


@pytest.fixture
def remote(service: Service) -> Iterator[Any]:
    with over_a_connection(service) as client:
        yield client
