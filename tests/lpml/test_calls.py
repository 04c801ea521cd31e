"""Every way to call: over a connection, in one process, and on plain objects."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from typing import Any

import numpy as np
import pytest

import lpml
from tests.lpml.called import Own, Service, in_one_process, over_a_connection
from tests.lpml.called import any_client as any_client
from tests.lpml.called import client as client
from tests.lpml.called import service as service


def test_a_call_and_a_future_return_the_same(any_client: Any) -> None:
    assert any_client.echo(5) == 5
    future = lpml.future(any_client.echo, 5)
    assert future.result() == 5
    assert future.done()
    assert future.exception() is None
    assert not future.cancel()
    assert not future.cancelled()
    assert lpml.future(any_client.total, np.ones(3), scale=2.0).result(60.0) == 6.0


def test_an_exception_has_its_class_and_attributes(any_client: Any) -> None:
    with pytest.raises(Own) as caught:
        any_client.fail(7)
    assert caught.value.code == 7
    future = lpml.future(any_client.fail, 8)
    error = future.exception(60.0)
    assert isinstance(error, Own)
    assert error.code == 8
    with pytest.raises(Own):
        future.result()


def test_a_stream_yields_what_the_method_yields(any_client: Any, service: Service) -> None:
    with lpml.stream(any_client.count, 40) as items:
        assert list(items) == list(range(40))
    assert service.closed.wait(60.0)
    assert list(lpml.stream(any_client.numbers, 40)) == list(range(40))
    assert list(lpml.stream(any_client.listing)) == [1, 2, 3]
    assert list(any_client.count(3)) == [0, 1, 2]


def test_a_stream_that_is_left_ends_its_generator(any_client: Any, service: Service) -> None:
    with lpml.stream(any_client.count, 1000) as items:
        assert next(items) == 0
    assert service.closed.wait(60.0)
    assert service.made <= 40
    with pytest.raises(StopIteration):
        next(items)


def test_a_stream_that_is_dropped_ends_its_generator(any_client: Any, service: Service) -> None:
    items = lpml.stream(any_client.count, 1000)
    next(items)
    del items
    gc.collect()
    assert service.closed.wait(60.0)


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
            assert [each.result(60.0) for each in futures] == [2.0 * array.size] * 3
        assert [f.result(60.0) for f in lpml.broadcast(group, Service.echo, 3)] == [3, 3, 3]


def test_first_returns_those_that_ended_first(any_client: Any, service: Service) -> None:
    late = lpml.future(any_client.until_go, 0)
    early = [lpml.future(any_client.echo, n) for n in (1, 2)]
    ended = lpml.first(2, [late, *early], timeout=10)
    assert {future.result() for future in ended} == {1, 2}
    with pytest.raises(lpml.CallTimeout, match="2 of 3 calls ended"):
        lpml.first(3, [late, *early], timeout=0.01)
    service.go.set()
    assert late.result(60.0) == 0
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
    assert called.wait(60.0)
    future.add_done_callback(seen.append)
    assert seen == [future, future]


def test_a_batched_method_serves_one_caller_too(any_client: Any) -> None:
    assert any_client.double(np.float32(3)) == 6


def test_a_cancelled_future_says_so(any_client: Any, service: Service) -> None:
    future = lpml.future(any_client.hold)
    assert service.held.acquire(timeout=60)
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    with pytest.raises(lpml.CallCancelled):
        future.result()
