"""What every launcher promises, on a Ray cluster: the same suites, on another launcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lpml
from tests.launching import Launch
from tests.lpml.test_cutting import *  # noqa: F403
from tests.lpml.test_every_end import *  # noqa: F403
from tests.lpml.test_every_failure import *  # noqa: F403
from tests.lpml.test_every_launcher import *  # noqa: F403
from tests.lpml.test_every_view import *  # noqa: F403
from tests.lpml.test_faults import *  # type: ignore[assignment]  # noqa: F403
from tests.lpml.test_interrupted_runs import *  # noqa: F403
from tests.lpml.test_journal import *  # type: ignore[assignment]  # noqa: F403
from tests.lpml.test_restarts import *  # noqa: F403
from tests.lpml.test_resume import *  # noqa: F403
from tests.lpml.test_scaling import *  # type: ignore[assignment]  # noqa: F403
from tests.lpml.test_set_backs import *  # noqa: F403
from tests.lpml.test_stopped_nodes import *  # noqa: F403
from tests.lpml.test_strangers import *  # noqa: F403


@pytest.fixture  # type: ignore[no-redef]
def start(cluster: str, tmp_path: Path) -> Launch:
    """Launches a program on the cluster; the run folder is kept for the test."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 5.0}
    options["address"] = cluster
    return lambda program, **changes: lpml.launch(program, "ray", **{**options, **changes})


@pytest.fixture  # type: ignore[no-redef]
def launcher(cluster: str) -> list[str]:
    """Words of `lpml run`."""
    return ["--launch=ray", f"--address={cluster}"]
