"""Anakin: the loop on the device, on one and on several, and the program around it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents import load_policy, make_environment
from lpml.agents.anakin import Anakin
from lpml.agents.dqn import DQNConfig
from lpml.agents.fused import Fused
from lpml.agents.impala import ImpalaConfig
from lpml.agents.jax_environments import Catch
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.errors import NotFinite
from lpml.nodes import AbstractSimulation, Counter, replay_keys
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import begin, draw_keys
from lpml.programs import on_device
from lpml.testing import running

ROOT = Path(__file__).resolve().parents[2]
SMALL = PPOBuilder(PPOConfig(batch_size=8, unroll_length=4, hidden=(8,), minibatches=2, epochs=1))

# One call on D devices, started with so many of them; prints the parameters and the sums.
ONE_CALL = """
import json, sys, jax, numpy as np
from lpml.agents.fused import Fused
from lpml.agents.jax_environments import simulation_named
from lpml.programs.on_device import make_builder
from lpml.agents.ppo import PPOConfig
from lpml.agents.impala import ImpalaConfig
from lpml.agents.dqn import DQNConfig
agent, found = sys.argv[1], {}
builder = make_builder(agent, "CartPole-v1", 16,
    PPOConfig(unroll_length=8, hidden=(8,), epochs=2),
    ImpalaConfig(batch_size=8, sequence_length=8, hidden=(8,), lstm=4),
    DQNConfig(batch_size=16, hidden_sizes=(8,), n_step=3, min_replay_size=16, replay_size=400,
              samples_per_insert=8.0))
iterations = 8 if agent == "dqn" else 2
for devices in (1, 2, 4, 8):
    fused = Fused(builder, simulation_named("CartPole-v1"), num_envs=16, iterations=iterations,
                  devices=jax.devices()[:devices])
    state, report = fused.call(fused.init(3))
    leaves = jax.tree.leaves(fused.variables(state.learner))
    flat = [np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves]
    found[devices] = {
        "params": np.concatenate(flat).tolist(),
        "sums": [float(value) for value in report.sums],
        "lanes": len(state.simulated.lanes.steps.sharding.device_set),
        "updates": int(report.updates),
    }
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("agent", ["ppo", "impala", "dqn"])
def test_several_devices_compute_what_one_does(agent: str) -> None:
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
        "--xla_backend_optimization_level=0",  # compiles sooner
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", ONE_CALL, agent],
        env=environment, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for devices in ("2", "4", "8"):
        assert found[devices]["lanes"] == int(devices)
        assert found[devices]["updates"] == found["1"]["updates"] > 0
        assert found[devices]["sums"] == pytest.approx(found["1"]["sums"], rel=1e-5)
        np.testing.assert_allclose(
            found[devices]["params"], found["1"]["params"], rtol=1e-5, atol=1e-5
        )


@pytest.mark.timeout(300)
def test_the_loop_counts_publishes_and_goes_on_where_it_was_saved() -> None:
    fused = Fused(SMALL, Catch(), iterations=2, devices=jax.devices()[:1])
    node = Anakin(fused, seed=1)
    first = node.pull()
    assert (first.version, node.step()) == (0, 2)
    second = node.pull(at_least=2)
    assert second.version == 2
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first.params, second.params)
    assert max(jax.tree.leaves(moved)) > 0
    saved = node.save()
    node.step()
    after = node.pull().params
    other = Anakin(fused, seed=9)
    other.restore(saved)
    assert other.step() == 4
    jax.tree.map(np.testing.assert_array_equal, after, other.pull().params)
    assert node.statistics().updates == 2  # of the calls that the device is known to have done


def test_what_was_under_way_when_it_was_saved_is_counted_afterwards() -> None:
    fused = Fused(SMALL, Catch(), iterations=2, devices=jax.devices()[:1])
    counter = Counter()
    node = Anakin(fused, counter=counter, max_steps=fused.steps - 4)
    node.step()
    other = Anakin(fused, counter=counter, max_steps=fused.steps - 4)
    other.restore(node.save())
    other.run()
    assert other.pull().version == other.statistics().updates == 4
    assert counter.get()["learner_steps"] == 4


@dataclass(frozen=True)
class Breaking(AbstractSimulation):
    """Catch whose reward is no number after so many steps of an episode."""

    catch: Catch = field(default_factory=Catch)
    after: int = 5

    @property
    def spec(self) -> EnvironmentSpec:
        return self.catch.spec

    def reset(self, key: jax.Array) -> tuple[Any, Any]:
        return self.catch.reset(key)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> Any:
        new, observation, reward, *ends = self.catch.step(state, action, key)
        return new, observation, jnp.where(new.row >= self.after, jnp.nan, reward), *ends


def test_the_replay_of_the_loop_draws_with_other_keys_than_the_policy() -> None:
    builder = on_device.make_builder("dqn", "Catch", 4, dqn=DQNConfig())
    state = Fused(builder, Catch(), num_envs=4).init(0)
    _, keys = draw_keys(state.simulated, 4)
    drawn, own = (np.asarray(jax.random.key_data(key)) for key in (keys, state.held.key))
    assert not (drawn == own).all(axis=1).any()


@pytest.mark.timeout(300)
def test_an_environment_that_breaks_in_the_loop_is_named_with_a_seed_that_replays_it() -> None:
    node = Anakin(Fused(SMALL, Breaking(), iterations=2, devices=jax.devices()[:1]), seed=4)
    with pytest.raises(NotFinite, match=r"environment 0 of 8 \(jax/Catch, seed 4\)") as caught:
        [node.step() for _ in range(4)]
    assert "after step 5 of its episode" in str(caught.value)
    seed = int(str(caught.value).split("replay_keys(")[1].split(",")[0])
    state, _ = Catch().reset(replay_keys(seed, 0))
    first = begin(Catch(), 8, 4)
    assert int(state.column) == int(first.state.column[0])
    assert seed == int(first.seed[0])


def test_agents_and_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(lpml.UsageError, match=r"num_envs=12 .* batches of 8"):
        Fused(SMALL, Catch(), num_envs=12, devices=jax.devices()[:1])
    with pytest.raises(lpml.UsageError, match="did you mean"):
        on_device.program(env="CartPol-v1")
    for agent in ("impala", "dqn"):
        with pytest.raises(lpml.UsageError, match="continuous"):
            on_device.program(agent, "Pendulum-v1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "envpool/Pong-v5"}, "lpml run sebulba --env envpool/Pong-v5` takes those"),
        ({"env": "ALE/Pong-v5"}, "'ALE/Pong-v5' is none .* sebulba"),
        ({"env": "Ant-v5"}, "'Ant-v5' is none .* Pendulum-v1, gymnax/NAME"),
        ({"env": "Cach"}, "did you mean 'Catch'"),
        ({"env": "jax/Nothing"}, "none of lpml's own"),
        ({"num_envs": 12, "agent": "impala", "impala": ImpalaConfig(batch_size=8)}, "batches of 8"),
        ({"num_envs": 2000, "agent": "dqn", "dqn": DQNConfig(replay_size=2000)}, "larger replay"),
        ({"num_envs": 0}, r"^num_envs=0: give at least 1"),
        ({"num_envs": 0, "agent": "impala"}, r"^num_envs=0: give at least 1"),
        ({"num_envs": -1, "agent": "dqn"}, r"^num_envs=-1: give at least 1"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_starts(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(lpml.UsageError, match=message):
        on_device.program(**options)


def test_more_environments_than_memory_holds_are_refused_with_an_estimate() -> None:
    with pytest.raises(
        lpml.UsageError, match=r"num_envs=8000000000 take \d+\.\d GiB .* leave half"
    ):
        Fused(SMALL, Catch(), num_envs=8_000_000_000, devices=jax.devices()[:1])


@pytest.mark.timeout(300)
def test_what_learning_from_them_takes_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpml.nodes.memory.device_memory", lambda: 1 << 16)
    wide = PPOBuilder(dataclasses.replace(SMALL.config, hidden=(256,)))
    fused = Fused(wide, Catch(), iterations=1, devices=jax.devices()[:1])  # fit by themselves
    with pytest.raises(lpml.UsageError, match=r"what is learned from them: num_envs=8 take"):
        Anakin(fused, max_steps=1).run()


def test_what_is_given_wins_over_what_is_known_of_the_environment() -> None:
    builder = on_device.make_builder(
        "ppo", "jax/CartPole-v1", 24, PPOConfig(minibatches=2), ImpalaConfig()
    )
    assert isinstance(builder, PPOBuilder)
    assert (builder.config.batch_size, builder.config.minibatches) == (24, 2)
    assert builder.config.anneal_steps == 300_000


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("agent", ["ppo", "impala", "dqn"])
def test_the_program_solves_catch_and_leaves_a_policy(agent: str, runs: Path) -> None:
    made = on_device.program(agent, "Catch", max_seconds=300.0)  # type: ignore[arg-type]
    with running(made, "test", timeout=380, directory=runs) as run:
        outcome = run.wait(380)
    assert (outcome.state, "reached 0.95" in outcome.reason) == ("finished", True)
    policy = load_policy(run.folder.path / "policy")
    environment = make_environment("Catch", 20, seed=5)
    observation, total = environment.reset(5), 0.0
    for _ in range(9):
        step = environment.step(policy(observation))
        observation, total = step.observation, total + step.reward.sum()
    assert total / 20 >= 0.8


def physics(name: str, package: str, extra: str, target: float) -> Any:
    """A row of the next test, skipped where the package is not there."""
    return pytest.param(
        name,
        target,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None,
            reason=f"{package} is not there: pip install lpml[{extra}]",
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # theirs, while they are imported
@pytest.mark.parametrize(
    ("name", "target"),
    [
        physics("gymnax/CartPole-v1", "gymnax", "gymnax", 475.0),
        physics("brax/inverted_pendulum:spring", "brax", "brax", 900.0),
        physics("mjx/CartpoleBalance", "mujoco_playground", "mjx", 900.0),
    ],
)
def test_ppo_learns_in_simulators_of_others(name: str, target: float, runs: Path) -> None:
    made = on_device.program(env=name, target_return=target, max_seconds=600.0)
    # Physics is compiled in constructors too.
    with running(made, "local_mp", timeout=850, start_timeout=600, directory=runs) as run:
        outcome = run.wait(850)
    assert (outcome.state, f"reached {target:g}" in outcome.reason) == ("finished", True)
