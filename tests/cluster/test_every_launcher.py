"""What every launcher promises, on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lpml
from tests.lpml.test_every_launcher import *  # noqa: F403  # the suite itself
from tests.lpml.test_every_launcher import Launch


@pytest.fixture
def start(cluster: str, tmp_path: Path) -> Launch:  # type: ignore[no-redef]
    """Launches a program on the cluster; the run folder is kept for the test."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 5.0}
    options["address"] = cluster
    return lambda program, **changes: lpml.launch(program, "ray", **{**options, **changes})
