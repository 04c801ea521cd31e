"""The program dqn: what it is made of, that it stops by itself, and that it solves CartPole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lpml
from lpml.agents import load_policy
from lpml.agents.dqn import DQNConfig
from lpml.programs import dqn
from lpml.record.plot import read_curves
from lpml.testing import running

QUICK = DQNConfig(hidden_sizes=(16,), min_replay_size=100, batch_size=32, samples_per_insert=8)


def test_numbers_of_the_command_line_become_nodes() -> None:
    program = dqn.program("Catch", num_actors=3, num_replays=2, num_inference_servers=1)
    names = [node.name for node in lpml.compile(program, "local_mp").nodes]
    groups = [name.partition("/")[0] for name in names]
    assert {name: groups.count(name) for name in groups} == {
        "counter": 1,
        "stopper": 1,
        "replay": 2,
        "learner": 1,
        "inference": 1,
        "actor": 3,
        "evaluator": 1,
    }


def test_a_table_that_could_never_be_sampled_starts_nothing() -> None:
    with pytest.raises(lpml.UsageError, match=r"could never be sampled.*20000.*at most 10000"):
        dqn.program("Catch", config=DQNConfig(min_replay_size=20_000))


def test_it_refuses_continuous_actions() -> None:
    pytest.importorskip("gymnasium")
    with pytest.raises(lpml.UsageError, match=r"Pendulum-v1.*continuous.*ppo"):
        dqn.program("Pendulum-v1")


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["test", "local_mp"])
def test_it_stops_after_its_steps_and_leaves_a_policy(launch: str, runs: Path) -> None:
    program = dqn.program(
        "Catch", target_return=2.0, max_actor_steps=600, evaluation_episodes=5, config=QUICK
    )
    with running(program, launch, timeout=110, directory=runs) as run:
        outcome = run.wait(110)
    assert outcome.state == "finished", outcome.reason
    assert "600" in outcome.reason
    policy = load_policy(run.folder.path / "policy")
    assert policy(np.zeros((10, 5), np.float32)) in (0, 1, 2)
    assert policy.builder.config == QUICK


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_solves_cartpole_on_processes(seed: int, runs: Path) -> None:
    pytest.importorskip("gymnasium")
    with running(dqn.program(seed=seed), "local_mp", timeout=280, directory=runs) as run:
        outcome = run.wait(280)
    assert outcome.state == "finished"
    assert "reached 475" in outcome.reason
    ((steps, returns),) = read_curves(run.folder)["evaluator_return"].values()
    assert returns[-1] >= 475
    assert steps[-1] <= 120_000
