"""The pytest fixtures of lpml: `pytest_plugins = ["lpml.testing.plugin"]` in a conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lpml.testing.leaks import no_leaks


@pytest.fixture
def leak_check() -> Iterator[None]:
    """Fails the test if it leaves a process, thread, descriptor, shared memory or folder."""
    with no_leaks():
        yield
