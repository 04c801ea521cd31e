"""PPO spread over nodes, started as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lpml
from lpml.agents import load_policy, make_environment
from lpml.agents.ppo import PPOConfig, recommended
from lpml.programs import ppo
from lpml.testing import running


def test_options_that_are_left_alone_are_those_of_the_environment() -> None:
    adapted = ppo.adapted(PPOConfig(), "Pendulum-v1", num_envs=6)
    assert adapted.unroll_length == recommended("Pendulum-v1").unroll_length == 128
    assert adapted.batch_size == 6
    given = PPOConfig(unroll_length=64, batch_size=4)
    adapted = ppo.adapted(given, "Pendulum-v1", num_envs=6)
    assert (adapted.unroll_length, adapted.batch_size) == (64, 4)
    assert adapted.discount == recommended("Pendulum-v1").discount
    for source in ("jax/", "gymnax/", "envpool/"):
        assert ppo.adapted(given, f"{source}Pendulum-v1", num_envs=6) == adapted
    assert ppo.adapted(PPOConfig(), "Acrobot-v1", num_envs=8) == PPOConfig()


def test_a_batch_that_does_not_divide_is_refused_before_anything_starts() -> None:
    with pytest.raises(lpml.UsageError, match="do not divide into minibatches=4"):
        ppo.program("Catch", envs_per_actor=3, config=PPOConfig(unroll_length=9))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_solves_catch_and_leaves_a_policy_that_plays_it(runs: Path) -> None:
    program = ppo.program("Catch", max_seconds=200.0)
    with running(program, "test", timeout=220, directory=runs) as run:
        outcome = run.wait(220)
    assert (outcome.state, "reached 0.95" in outcome.reason) == ("finished", True)
    policy = load_policy(run.folder.path / "policy")
    environment = make_environment("Catch", 20, seed=5)
    observation, total = environment.reset(5), 0.0
    for _ in range(9):
        step = environment.step(policy(observation))
        observation, total = step.observation, total + step.reward.sum()
    assert total / 20 >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_it_solves_on_processes(env: str, runs: Path) -> None:
    with running(ppo.program(env), "local_mp", timeout=580, directory=runs) as run:
        outcome = run.wait(580)
    assert (outcome.state, "reached" in outcome.reason) == ("finished", True)
    rows = (run.folder.path / "metrics" / "learner-0.jsonl").read_text().splitlines()
    assert max(json.loads(row).get("lag_kl", 0.0) for row in rows) < 0.2
