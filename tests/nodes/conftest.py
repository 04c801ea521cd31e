"""What the tests of nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lpml.testing import VirtualClock, node


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """The time of the node that the test is."""
    clock = VirtualClock()
    with node(clock=clock):
        yield clock
