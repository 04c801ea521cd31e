"""`Shared` values that a reader on another host is told of, and fetches when it looks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.context import Context
from lpml.service import interface_of
from lpml.wire import references, tls
from lpml.wire.shared import find
from tests.waiting import until

pytest.importorskip("cryptography", reason="needs the extra ray")


class Publisher:
    """Publishes a new value each time it is asked, and says which are alive."""

    def __init__(self) -> None:
        self._values: list[weakref.ref[Any]] = []

    def pull(self) -> lpml.Shared[Any]:
        value = lpml.Shared(np.arange(500_000))
        self._values.append(weakref.ref(value))
        return value

    @lpml.idempotent
    def again(self) -> lpml.Shared[Any]:
        return self.pull()

    def alive(self) -> int:
        gc.collect()
        return sum(each() is not None for each in self._values)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Any]:
    """A client of a publisher, as if that were on another host."""
    from lpml.wire.authority import Authority

    identity = Authority("test").issue("host")
    tls.join(identity)
    interface = interface_of(Publisher)
    remote = tls.listen_tcp("127.0.0.1")
    context = Context("publisher/0", "publisher")
    dispatcher = wire.Dispatcher(Publisher(), interface, context, "publisher/0")
    server = wire.Server(dispatcher, wire.listen(tmp_path / "s.sock"), (remote, identity))
    server.start()
    address = tls.address_of(remote, identity)
    client = wire.connect(address, interface, node="publisher/0", caller="test")
    yield client
    references.fetch_by(None)
    wire.close(client)
    server.close()
    tls.leave(identity)


def here(owner: str, identity: bytes) -> lpml.Shared[Any]:
    """Both sides are this process, so that the value needs no fetching."""
    assert owner.startswith("tls://")
    value = find(identity)
    assert value is not None  # the owner keeps it
    return value


def gone(owner: str, identity: bytes) -> lpml.Shared[Any]:
    raise lpml.NodeUnavailable("the owner is gone")


def until_alive(client: Any, count: int) -> bool:
    return until(lambda: client.alive() == count)


def test_the_owner_keeps_a_value_until_it_was_fetched(publisher: Any) -> None:
    references.fetch_by(here)
    future = lpml.future(publisher.pull)
    while not future.done():
        pass
    assert publisher.alive() == 1
    value = future.result()
    assert value.value[7] == 7
    del value, future
    assert until_alive(publisher, 0)


def test_a_result_that_nobody_looks_at_is_not_kept(publisher: Any) -> None:
    references.fetch_by(here)
    future = lpml.future(publisher.pull)
    while not future.done():
        pass
    del future
    assert until_alive(publisher, 0)


def test_a_value_whose_owner_is_gone_is_unavailable(publisher: Any) -> None:
    references.fetch_by(gone)
    with pytest.raises(lpml.NodeUnavailable, match=r"test called publisher/0\.pull: the owner is"):
        publisher.pull()
    with pytest.raises(lpml.NodeUnavailable, match="the owner is gone"):
        lpml.future(publisher.pull).result()


def test_an_idempotent_call_is_made_again(publisher: Any) -> None:
    fetches = [gone, here]
    references.fetch_by(lambda owner, identity: fetches.pop(0)(owner, identity))
    assert publisher.again().value[7] == 7
    assert not fetches


def test_a_process_without_a_relay_is_sent_the_value(publisher: Any) -> None:
    assert publisher.pull().value[7] == 7
    assert until_alive(publisher, 0)
