"""The strictest settings for every test, and nothing left behind by any.

Warnings are errors and a test has a time limit (`pyproject.toml`). What jax reads on import is
set in the environment, so a test that needs no jax does not pay for it, and nodes inherit it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lpml.testing.plugin import leak_check as leak_check
from tests.waiting import until

os.environ.update(
    JAX_PLATFORMS="cpu",
    JAX_NUMPY_DTYPE_PROMOTION="strict",
    JAX_NUMPY_RANK_PROMOTION="raise",
    TF_CPP_MIN_LOG_LEVEL="2",
    PYTHONUNBUFFERED="1",
)
_TWO_DEVICES = "--xla_force_host_platform_device_count=2"
if _TWO_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_TWO_DEVICES}".strip()


# At once: a test takes the profile that is loaded when it is defined. No deadline, and no complaint
# about slowness: they measure the machine, which may have others to serve.
settings.register_profile(
    "lpml", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lpml")


@pytest.fixture(scope="session", autouse=True)
def _own_folders() -> Iterator[None]:
    """Run folders and sockets of this session go to a place of their own, with a short path."""
    root = tempfile.mkdtemp(prefix="lpml-t")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPML_SOCKETS", f"{root}/s")
        patch.setenv("LPML_RUNS", f"{root}/runs")
        yield
    shutil.rmtree(root, ignore_errors=True)
    orphans: list[str] = []

    def are_gone() -> bool:  # what is ending may take a moment
        orphans[:] = _processes_with(f"LPML_SOCKETS={root}")
        return not orphans

    if not until(are_gone, 20.0):
        pytest.fail(f"processes of this session outlived their tests: {orphans}", pytrace=False)


def _processes_with(variable: str) -> list[str]:
    """Who has `variable` in the environment it started with: descendants, even if orphaned."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(f"{folder.name}: {command}")
    return found


@pytest.fixture(scope="module", autouse=True)
def _pickled_by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test module defines travels by value: no other process can import the module."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(autouse=True)
def _nothing_left(leak_check: None) -> None:
    """Every test is checked for leaks."""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the runs of one test go."""
    monkeypatch.setenv("LPML_RUNS", str(tmp_path))
    return tmp_path
