"""What a node may use of the machine."""

from __future__ import annotations

import sys

import pytest

import lpml
from lpml.launchers import devices
from lpml.launchers.compiling import compile
from tests.launching import Launch
from tests.lpml.inside import Inside, program_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def start(processes: Launch) -> Launch:
    """Launches a program on processes."""
    return processes


def test_accelerators_are_shared_out_by_need() -> None:
    machine = devices.Machine(cpu=4, gpus=("0", "1", "2"))
    needs = {
        "small/0": lpml.Resources(gpu=0.5),
        "small/1": lpml.Resources(gpu=0.5),
        "large/0": lpml.Resources(gpu=2),
        "none/0": lpml.Resources(),
    }
    assert devices.place(needs, machine) == {
        "large/0": ("0", "1"),
        "small/0": ("2",),
        "small/1": ("2",),
        "none/0": (),
    }
    assert devices.faults(needs, machine) == []
    (fault,) = devices.faults({**needs, "more/0": lpml.Resources(gpu=0.5)}, machine)
    assert "more/0: Resources(gpu=0.5)" in fault


def test_the_environment_of_a_node_says_what_it_may_use() -> None:
    shared = devices.environment(lpml.Resources(cpu=1.5, gpu=0.5, env={"NPROC": "7"}), ("2",))
    assert shared["CUDA_VISIBLE_DEVICES"] == "2"
    assert shared["OMP_NUM_THREADS"] == "2"
    assert shared["NPROC"] == "7"
    assert shared["XLA_PYTHON_CLIENT_MEM_FRACTION"] == shared["XLA_CLIENT_MEM_FRACTION"] == "0.5"
    assert "JAX_PLATFORMS" not in shared
    assert devices.environment(lpml.Resources(), ())["JAX_PLATFORMS"] == "cpu"


def test_memory_that_the_machine_does_not_have_is_a_fault() -> None:
    machine = devices.Machine(cpu=4, memory=2**30)
    (fault,) = devices.faults({"a/0": lpml.Resources(memory=2**31)}, machine)
    assert "2.0 GiB" in fault


def test_a_plan_says_what_would_be_started() -> None:
    program = program_of(lpml.Node(Inside), cpu=1, env={"MINE": "yes"})
    plan = compile(program, "local_mp")
    (node,) = plan.to_json()["nodes"]
    assert node["environment"]["MINE"] == "yes"
    assert node["service"] == "Inside"
    assert "pid" in node["methods"]
    assert node["payload_bytes"] > 0
