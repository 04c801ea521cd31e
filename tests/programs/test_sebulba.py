"""The program: it is checked, it learns in a moment what is tiny, and solves what it says."""

from __future__ import annotations

import importlib.util

import pytest

import lpml
from lpml.agents import load_policy, make_environment
from lpml.agents.impala import ImpalaConfig
from lpml.agents.ppo import PPOConfig
from lpml.errors import UsageError
from lpml.programs import sebulba

TINY = ImpalaConfig(hidden=(8,), lstm=0, sequence_length=4)


@pytest.mark.usefixtures("runs")
def test_a_run_counts_its_steps_and_leaves_a_policy() -> None:
    program = sebulba.program(
        "impala", "Catch", num_envs=8, max_actor_steps=400, evaluation_episodes=4, impala=TINY
    )
    with lpml.launch(program, "local_mt") as run:
        outcome = run.wait(110)
    assert (outcome.state, "steps" in outcome.reason) == ("finished", True)
    policy = load_policy(run.folder.path / "policy")
    assert policy(make_environment("Catch", 3).reset()).shape == (3,)


def test_what_does_not_fit_is_found_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="did you mean 'CartPole-v1'"):
        sebulba.program(env="CartPol-v1")
    with pytest.raises(UsageError, match="continuous"):
        sebulba.program("impala", "jax/Pendulum-v1")
    with pytest.raises(UsageError, match="agent='dqn'; there are ppo and impala"):
        sebulba.program("dqn")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="evaluation_episodes=0"):
        sebulba.program(evaluation_episodes=0)
    with pytest.raises(
        UsageError, match="num_envs=32 environments do not divide among num_actors=3;"
    ):
        sebulba.program(num_actors=3)
    with pytest.raises(UsageError, match="do not divide into batches of 24"):
        sebulba.program("impala", impala=ImpalaConfig(batch_size=24))
    with pytest.raises(UsageError, match="num_actors=0"):
        sebulba.program(num_actors=0)
    with pytest.raises(UsageError, match="ahead=-1"):
        sebulba.program(ahead=-1)
    with pytest.raises(UsageError, match=r"^num_envs=0: give at least 1"):
        sebulba.program(num_envs=0)


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("agent", ["ppo", "impala"])
@pytest.mark.parametrize(
    "environment",
    [
        *("CartPole-v1", "Catch", "jax/CartPole-v1", "jax/Catch"),
        pytest.param(
            "envpool/CartPole-v1",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("envpool") is None,
                reason="envpool is not there: pip install lpml[envpool]",
            ),
        ),
    ],
)
def test_it_solves(agent: str, environment: str) -> None:
    program = sebulba.program(agent, environment, max_seconds=300)  # type: ignore[arg-type]
    with lpml.launch(program, "local_mp") as run:
        outcome = run.wait(360)
    assert (outcome.state, "reached" in outcome.reason) == ("finished", True)


def test_options_of_the_agent_are_checked() -> None:
    with pytest.raises(UsageError, match="minibatches"):
        sebulba.program("ppo", "Catch", num_envs=1, ppo=PPOConfig(minibatches=7))
