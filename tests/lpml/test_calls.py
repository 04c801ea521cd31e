"""Every way to call: over a connection, in one process, and on plain objects."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
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
from lpml.service import Interface, interface_of
from lpml.wire import memory


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


# The same on clients and on plain objects.


def test_a_call_and_a_future_return_the_same(any_client: Any) -> None:
    assert any_client.echo(5) == 5
    future = lpml.future(any_client.echo, 5)
    assert future.result() == 5
    assert future.done()
    assert future.exception() is None
    assert not future.cancel()
    assert not future.cancelled()
    assert lpml.future(any_client.total, np.ones(3), scale=2.0).result(5) == 6.0


def test_an_exception_has_its_class_and_attributes(any_client: Any) -> None:
    with pytest.raises(Own) as caught:
        any_client.fail(7)
    assert caught.value.code == 7
    future = lpml.future(any_client.fail, 8)
    error = future.exception(5)
    assert isinstance(error, Own)
    assert error.code == 8
    with pytest.raises(Own):
        future.result()


def test_a_stream_yields_what_the_method_yields(any_client: Any, service: Service) -> None:
    with lpml.stream(any_client.count, 40) as items:
        assert list(items) == list(range(40))
    assert service.closed.wait(5)
    assert list(lpml.stream(any_client.numbers, 40)) == list(range(40))
    assert list(lpml.stream(any_client.listing)) == [1, 2, 3]
    assert list(any_client.count(3)) == [0, 1, 2]


def test_a_stream_that_is_left_ends_its_generator(any_client: Any, service: Service) -> None:
    with lpml.stream(any_client.count, 1000) as items:
        assert next(items) == 0
    assert service.closed.wait(5)
    assert service.made <= 40
    with pytest.raises(StopIteration):
        next(items)


def test_a_stream_that_is_dropped_ends_its_generator(any_client: Any, service: Service) -> None:
    items = lpml.stream(any_client.count, 1000)
    next(items)
    del items
    gc.collect()
    assert service.closed.wait(5)


def test_a_stream_that_fails_raises_after_its_items(any_client: Any) -> None:
    items = lpml.stream(any_client.break_after, 20)
    assert list(itertools.islice(items, 20)) == list(range(20))
    with pytest.raises(Own):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_async_calls_and_streams(any_client: Any) -> None:
    async def main() -> None:
        values = await asyncio.gather(*[lpml.acall(any_client.echo, n) for n in range(20)])
        assert values == list(range(20))
        assert await lpml.future(any_client.echo, 1) == 1
        with pytest.raises(Own):
            await lpml.acall(any_client.fail, 1)
        async with lpml.stream(any_client.count, 40) as items:
            assert [item async for item in items] == list(range(40))

    asyncio.run(main())


def test_broadcast_calls_every_member(any_client: Any, service: Service) -> None:
    with over_a_connection(Service()) as other, in_one_process(Service()) as third:
        group = [any_client, other, third]
        for array in (np.ones(4), np.ones(200_000)):
            futures = lpml.broadcast(group, Service.total, array, scale=2.0)
            assert [each.result(10) for each in futures] == [2.0 * array.size] * 3
        assert [f.result(10) for f in lpml.broadcast(group, Service.echo, 3)] == [3, 3, 3]


def test_first_returns_those_that_ended_first(any_client: Any, service: Service) -> None:
    late = lpml.future(any_client.until_go, 0)
    early = [lpml.future(any_client.echo, n) for n in (1, 2)]
    ended = lpml.first(2, [late, *early], timeout=10)
    assert {future.result() for future in ended} == {1, 2}
    with pytest.raises(lpml.CallTimeout, match="2 of 3 calls ended"):
        lpml.first(3, [late, *early], timeout=0.01)
    service.go.set()
    assert late.result(10) == 0
    assert lpml.first(0, []) == []
    with pytest.raises(ValueError, match=r"first\(2\) of 1 futures"):
        lpml.first(2, [late])


def test_callbacks_are_called_once_with_the_future(any_client: Any, service: Service) -> None:
    seen: list[Any] = []
    called = threading.Event()
    future = lpml.future(any_client.until_go, 3)

    def note(ended: Any) -> None:
        seen.append(ended)
        called.set()

    future.add_done_callback(note)
    service.go.set()
    assert called.wait(5)
    future.add_done_callback(seen.append)
    assert seen == [future, future]


def test_a_batched_method_serves_one_caller_too(any_client: Any) -> None:
    assert any_client.double(np.float32(3)) == 6


def test_a_cancelled_future_says_so(any_client: Any, service: Service) -> None:
    future = lpml.future(any_client.hold)
    assert service.held.acquire(timeout=5)
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    with pytest.raises(lpml.CallCancelled):
        future.result()


# What only clients do.


def test_an_error_names_caller_node_method_cause_and_log_in_few_lines(remote: Any) -> None:
    with pytest.raises(KeyError) as caught:
        remote.key()
    text = str(caught.value)
    assert len(text.splitlines()) <= 5
    for word in ("test", "node/0.key", "KeyError", "node.log"):
        assert word in text
    assert isinstance(caught.value, lpml.RemoteError)
    assert 'raise KeyError("a\\nb")' in str(caught.value.__cause__)


def test_an_unknown_method_is_an_attribute_error_with_the_closest(client: Any) -> None:
    with pytest.raises(AttributeError, match="did you mean 'echo'"):
        client.ecko(1)
    assert "echo" in dir(client)
    assert "node/0" in repr(client)


def test_a_node_without_the_method_says_so(service: Service) -> None:
    with over_a_connection(service) as client:
        address = client._lpml_peer.link.address
        spec = INTERFACE.methods["echo"]
        newer = wire.connect(address, Interface("Service", {"ekho": spec}), node="node/0")
        with pytest.raises(AttributeError, match="did you mean 'echo'"):
            newer.ekho(1)
        wire.close(newer)


def test_what_cannot_be_sent_is_named(remote: Any) -> None:
    with pytest.raises(lpml.CallError, match=r"argument 2, a lock, of node/0.ask"):
        remote.ask(1, threading.Lock())
    with pytest.raises(TypeError, match="unsendable returned a lock"):
        remote.unsendable()
    with pytest.raises(RuntimeError, match="ValueError: with a lock"):
        remote.fail_unsendably()
    assert remote.echo(1) == 1


def test_a_client_is_a_client_where_it_is_sent(remote: Any) -> None:
    with over_a_connection(Service()) as other:
        assert remote.ask(other, 4) == 5
        assert remote.echo(other.echo)(3) == 3


def test_a_local_client_without_an_address_cannot_be_sent(remote: Any) -> None:
    with in_one_process(Service()) as local:
        with pytest.raises(lpml.CallError, match="only in its own process"):
            remote.ask(local, 4)


def test_a_deadline_bounds_calls(client: Any) -> None:
    with lpml.deadline(0.05), pytest.raises(lpml.CallTimeout):
        client.hold()
    with lpml.deadline(0.0), pytest.raises(lpml.CallTimeout):
        client.echo(1)
    assert client.echo(1) == 1


def test_a_result_that_is_late_can_be_asked_for_again(client: Any, service: Service) -> None:
    future = lpml.future(client.until_go, 3)
    with pytest.raises(lpml.CallTimeout, match="the call goes on"):
        future.result(0.01)
    service.go.set()
    assert future.result(5) == 3


def test_a_cancelled_task_cancels_its_call(remote: Any, service: Service) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(lpml.acall(remote.hold))
        await asyncio.get_running_loop().run_in_executor(None, service.held.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_cancelling_a_call_cancels_the_calls_it_made(remote: Any) -> None:
    inner = Service()
    with over_a_connection(inner) as other:
        future = lpml.future(remote.relay, other)
        assert inner.held.acquire(timeout=5)
        assert future.cancel()
        assert inner.ended.wait(5)


def test_a_slow_reader_holds_its_stream_back(remote: Any, service: Service) -> None:
    items = lpml.stream(remote.count, 1000)
    next(items)
    assert remote.echo(1) == 1  # the node has done what it would
    assert service.made <= 17
    for _ in range(50):
        next(items)
    assert remote.echo(1) == 1
    assert 50 < service.made <= 70
    items.close()


@pytest.mark.parametrize("shared_memory", [True, False])
def test_streams_of_large_arrays(
    remote: Any, shared_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared_memory:
        monkeypatch.setattr(memory, "supported", False)
    for index, array in enumerate(lpml.stream(remote.count, 20, 100_000)):
        assert array.sum() == index * 100_000


def test_many_threads_share_one_connection(remote: Any) -> None:
    wrong: list[Any] = []

    def call(base: int) -> None:
        for n in range(100):
            if n % 10 == 0:
                big = np.full(40_000, base + n)
                wrong.extend([base] if not (remote.echo(big) == big).all() else [])
            futures = [lpml.future(remote.echo, (base, n, k)) for k in range(3)]
            wrong.extend(k for k, f in enumerate(futures) if f.result(30) != (base, n, k))
            if remote.echo(base + n) != base + n:
                wrong.append(n)

    threads = [threading.Thread(target=call, args=(base * 1000,)) for base in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_both_sides_may_send_much_at_the_same_time(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "supported", False)
    payload = os.urandom(3_000_000)
    futures = [lpml.future(remote.echo, payload) for _ in range(12)]
    assert all(future.result(60) == payload for future in futures)


def test_a_client_that_was_closed_says_so(service: Service) -> None:
    with over_a_connection(service) as client:
        pending = lpml.future(client.hold)
        assert service.held.acquire(timeout=5)
        wire.close(client)
        wire.close(client)
        with pytest.raises(lpml.NodeUnavailable, match="closed"):
            pending.result(5)
        with pytest.raises(lpml.NodeUnavailable, match="was closed; make another"):
            client.echo(1)


def test_one_of_two_clients_may_be_closed(service: Service) -> None:
    with over_a_connection(service) as client:
        address = client._lpml_peer.link.address
        second = wire.connect(address, INTERFACE, node="node/0")
        assert second.echo(1) == client.echo(1) == 1
        wire.close(second)
        assert client.echo(2) == 2


def test_nobody_at_the_address_is_unavailable_at_once() -> None:
    client = wire.connect("unix:/nowhere/at/all", INTERFACE, node="node/9", caller="me")
    with pytest.raises(lpml.NodeUnavailable, match="me cannot reach node/9"):
        client.echo(1)
    with pytest.raises(lpml.NodeUnavailable, match="unix:/path"):
        wire.connect("carrier pigeon", INTERFACE, node="node/9").echo(1)


_CHILD = """
import sys
from pathlib import Path
import lpml
from lpml import wire
from lpml.service import Interface, MethodSpec
from lpml.context import Context

class Service:
    def hold(self):
        return lpml.context().wait(60)
    def echo(self, value):
        return value

interface = Interface("Service", {"hold": MethodSpec(), "echo": MethodSpec()})
server = wire.Server(
    wire.Dispatcher(Service(), interface, Context(), "child/0"), wire.listen(Path(sys.argv[1]))
)
server.start()
print("up", flush=True)
sys.stdin.read()
"""


def test_a_killed_node_fails_its_pending_calls_at_once(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lw") as folder:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, f"{folder}/s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            client = wire.connect(f"unix:{folder}/s", INTERFACE, node="child/0")
            assert client.echo(3) == 3
            pending = [lpml.future(client.hold) for _ in range(3)]
            child.kill()
            for each in pending:
                with pytest.raises(lpml.NodeUnavailable, match="child/0 is gone"):
                    each.result(10)
            with pytest.raises(lpml.NodeUnavailable):
                client.echo(1)
            wire.close(client)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings(  # of jax, where another test has used it
    "ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_forked_process_makes_a_connection_of_its_own(service: Service, remote: Any) -> None:
    assert remote.echo(1) == 1
    pending = lpml.future(remote.until_go, 5)
    pid = os.fork()
    if pid == 0:
        fine = False
        try:
            gone = pending.exception(10)  # its reply goes to the parent
            assert isinstance(gone, lpml.NodeUnavailable)
            assert "forked" in str(gone)
            fine = remote.echo(2) == 2 and lpml.future(remote.echo, 3).result(10) == 3
        finally:
            os._exit(0 if fine else 1)
    assert [remote.echo(n) for n in range(50)] == list(range(50))
    assert os.waitpid(pid, 0)[1] == 0
    assert not pending.done()
    service.go.set()
    assert pending.result(10) == 5


def test_local_calls_run_in_the_scope_of_the_node() -> None:
    class Who:
        def name(self) -> str:
            return lpml.context().name

    interface = interface_of(Who)
    local = wire.local(wire.Dispatcher(Who(), interface, Context("a/1", "a"), "a/1"))
    assert local.name() == "a/1"
    assert lpml.context().name == "standalone/0"


def test_local_batches_are_served_together() -> None:
    class Sizes:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        @lpml.batched(max_size=4, timeout=5.0)
        def double(self, x: Any) -> Any:
            self.sizes.append(len(x))
            return 2 * x

    service = Sizes()
    dispatcher = wire.Dispatcher(service, interface_of(Sizes), Context(), "a/0")
    local = wire.local(dispatcher)
    futures = [lpml.future(local.double, np.float32(n)) for n in range(8)]
    assert sorted(float(f.result(10)) for f in futures) == [2.0 * n for n in range(8)]
    assert sum(service.sizes) == 8
    assert len(service.sizes) <= 3


def test_statistics_count_calls_of_both_kinds(service: Service) -> None:
    dispatcher = wire.Dispatcher(service, INTERFACE, Context(), "node/0")
    local = wire.local(dispatcher)
    local.echo(1)
    with pytest.raises(Own):
        local.fail(1)
    assert dispatcher.statistics() == wire.DispatcherStatistics(calls=2, errors=1)
