"""Calls of nodes in one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.context import Context
from lpml.service import interface_of
from tests.lpml.called import INTERFACE, Own, Service
from tests.lpml.called import service as service


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
    assert sorted(float(f.result(60.0)) for f in futures) == [2.0 * n for n in range(8)]
    assert sum(service.sizes) == 8
    assert len(service.sizes) <= 3


def test_statistics_count_calls_of_both_kinds(service: Service) -> None:
    dispatcher = wire.Dispatcher(service, INTERFACE, Context(), "node/0")
    local = wire.local(dispatcher)
    local.echo(1)
    with pytest.raises(Own):
        local.fail(1)
    assert dispatcher.statistics() == wire.DispatcherStatistics(calls=2, errors=1)
