"""IMPALA spread over nodes, started as a user would."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpml.agents import saved
from lpml.agents.environments import make_environment, solved_at
from lpml.agents.impala import ImpalaConfig
from lpml.programs import impala
from lpml.testing import running
from tests.metrics import logged

SMALL = ImpalaConfig(hidden=(8,), lstm=4, sequence_length=5, batch_size=4)


@pytest.mark.slow
def test_it_learns_from_rollouts_of_all_actors_until_it_is_stopped(runs: Path) -> None:
    program = impala.program(
        num_actors=2, envs_per_actor=2, max_actor_steps=2000, target_return=2.0, config=SMALL
    )
    with running(program, "test", directory=runs) as run:
        outcome = run.wait(100)
    assert outcome.state == "finished"
    assert "2000" in outcome.reason or "steps" in outcome.reason
    policy = saved.load_policy(run.folder.path / "policy")
    assert policy.params.updates > 0
    assert policy(make_environment("Catch", 3).reset()).shape == (3,)


def test_rewards_are_scaled_where_the_program_knows_better() -> None:
    given = ImpalaConfig(reward_scale=0.5)
    assert impala.config_for("CartPole-v1", ImpalaConfig()).reward_scale == 0.1
    assert impala.config_for("jax/CartPole-v1", ImpalaConfig()).reward_scale == 0.1
    assert impala.config_for("CartPole-v1", given) == given
    assert impala.config_for("Catch", ImpalaConfig()) == ImpalaConfig()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", [0, 1])
@pytest.mark.parametrize("env", ["Catch", "CartPole-v1"])
def test_it_solves_on_processes(env: str, servers: int, runs: Path) -> None:
    program = impala.program(env, num_inference_servers=servers)
    with running(program, "local_mp", directory=runs) as run:
        outcome = run.wait(580)
    assert outcome.state == "finished"
    evaluations = logged(run, "evaluator/0")
    assert evaluations[-1]["evaluator_return"] >= (solved_at(env) or 0)
    assert max(row["max_policy_lag"] for row in logged(run, "learner/0")) >= 1
