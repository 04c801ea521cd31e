"""Launchers, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launching import Launch, launching
from tests.tables import LAUNCHERS


@pytest.fixture(params=LAUNCHERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Launch:
    """Launches a program on the launcher of the row."""
    return launching(request.param, tmp_path)


@pytest.fixture
def processes(tmp_path: Path) -> Launch:
    """Launches a program on processes."""
    return launching("local_mp", tmp_path)
