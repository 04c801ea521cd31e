"""What only clients do: errors that say where, deadlines, cancellation."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import lpml
from lpml import wire
from lpml.service import Interface
from tests.lpml.called import INTERFACE, Service, in_one_process, over_a_connection
from tests.lpml.called import client as client
from tests.lpml.called import remote as remote
from tests.lpml.called import service as service


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
    assert future.result(60.0) == 3


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
        assert inner.held.acquire(timeout=60)
        assert future.cancel()
        assert inner.ended.wait(60.0)
