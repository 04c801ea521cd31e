"""Sebulba as one object: the same parameters every time, saved and restored, on several devices."""

from __future__ import annotations

import functools
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

from lpml.agents import make_environment
from lpml.agents.catch import Catch
from lpml.agents.dqn import DQNBuilder
from lpml.agents.jax_environments import catch
from lpml.agents.sebulba import Sebulba
from lpml.errors import NotFinite, UsageError
from lpml.nodes import AbstractSimulation, Counter, VectorSimulator, replay_keys
from lpml.nodes.environment import AbstractEnvironment
from lpml.nodes.simulation import begin
from tests.agents.tiny_windows import WindowBuilder

ROOT = Path(__file__).resolve().parents[2]
ON_DEVICE = functools.partial(make_environment, "jax/Catch")
WINDOWS = WindowBuilder()


# With so many devices: prints what is said of them, and the parameters.
SEVERAL = """
import functools, json, sys, jax, numpy as np
from lpml.agents import make_environment
from lpml.agents.sebulba import Sebulba
from tests.agents.tiny_windows import WindowBuilder
acting, learning = (int(n) for n in sys.argv[1:3])
devices = jax.local_devices()
node = Sebulba(
    WindowBuilder(), functools.partial(make_environment, sys.argv[3]), num_envs=16, num_actors=2,
    acting=devices[:acting], learning=devices[-learning:], max_updates=6,
)
node.run()
leaves = jax.tree.leaves(node.pull().params)
print(json.dumps([np.asarray(leaf, np.float64).ravel().tolist() for leaf in leaves]))
"""


def learned(node: Sebulba) -> Any:
    """The last parameters, as one vector."""
    leaves = jax.tree.leaves(node.pull().params)
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in leaves])


@pytest.fixture(scope="module")
def alone() -> dict[str, list[Any]]:
    """Where all share one device."""
    return {"acting": jax.local_devices()[:1], "learning": jax.local_devices()[:1]}


@pytest.mark.parametrize("make", [Catch, ON_DEVICE], ids=["host", "device"])
def test_the_same_seed_gives_the_same_parameters(make: Any, alone: Any) -> None:
    made = []
    for seed in (1, 1, 2):
        node = Sebulba(WINDOWS, make, num_envs=16, num_actors=2, max_updates=8, seed=seed, **alone)
        node.run()
        made.append(learned(node))
        statistics = node.statistics()
        assert (statistics.learner.updates, statistics.rollouts) == (8, 4)  # two of each rollout
        assert 0 < statistics.steps <= 4 * 4 * 16
    assert (made[0] == made[1]).all()
    assert not (made[0] == made[2]).all()


class Watch(AbstractEnvironment):
    """Catch that notes how many updates the learner had made when it was stepped."""

    def __init__(self, num_envs: int, seed: int, versions: list[int], nodes: list[Sebulba]) -> None:
        self.inner = make_environment("jax/Catch", num_envs, seed)
        self.versions, self.nodes = versions, nodes

    @property
    def spec(self) -> Any:
        return self.inner.spec

    @property
    def num_envs(self) -> int:
        return self.inner.num_envs

    def reset(self, seed: int | None = None) -> Any:
        return self.inner.reset(seed)

    def step(self, action: Any) -> Any:
        self.versions.append(self.nodes[0].statistics().learner.updates)
        return self.inner.step(action)


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_an_actor_is_so_many_rollouts_ahead_and_no_more(ahead: int, alone: Any) -> None:
    versions: list[int] = []
    nodes: list[Sebulba] = []
    make = functools.partial(Watch, versions=versions, nodes=nodes)
    nodes.append(Sebulba(WINDOWS, make, ahead=ahead, max_updates=6, **alone))
    nodes[0].run()
    by_rollout = [versions[4 * n : 4 * n + 4] for n in range(len(versions) // 4)]
    for rollout, seen in enumerate(by_rollout):
        assert min(seen) >= rollout - ahead
        assert ahead or max(seen) <= rollout
    assert len(by_rollout) in range(6, 6 + ahead + 1)


def test_what_was_saved_goes_on_from_there(alone: Any) -> None:
    make = functools.partial(Sebulba, WINDOWS, Catch, **alone, max_updates=2)
    first = make()
    first.run()
    counter = Counter()  # which knows nothing of what the first has counted
    again = make(seed=5, counter=counter)
    again.restore(first.save())
    assert (learned(again) == learned(first)).all()
    assert again.statistics().steps == first.statistics().steps
    assert again.pull().version == 2
    again.run()  # has made its updates already, and hands in what was counted
    assert counter.get()["actor_steps"] == first.statistics().steps
    saved = first.save()
    saved["learner"]["state"] = {"w": np.zeros(3)}
    with pytest.raises(UsageError, match="saved with shape"):
        again.restore(saved)


def test_a_fault_of_an_environment_ends_the_node(alone: Any) -> None:
    class Broken(Exception):
        """Of the environment."""

    class Breaks(Watch):
        def step(self, action: Any) -> Any:
            raise Broken("the environment broke")

    make = functools.partial(Breaks, versions=[], nodes=[])
    node = Sebulba(WINDOWS, make, **alone)
    with pytest.raises(Broken, match="the environment broke"):
        node.run()


@dataclass(frozen=True)
class Breaking(AbstractSimulation):
    """Catch whose ball is nowhere after three steps of an episode."""

    catch: catch.Catch = field(default_factory=catch.Catch)

    @property
    def spec(self) -> Any:
        return self.catch.spec

    def reset(self, key: jax.Array) -> tuple[Any, Any]:
        return self.catch.reset(key)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> Any:
        new, observation, *rest = self.catch.step(state, action, key)
        return new, jnp.where(new.row >= 3, jnp.nan, observation), *rest


def test_a_simulator_that_breaks_is_named_with_a_seed_that_replays_it(alone: Any) -> None:
    def make(num_envs: int, seed: int) -> VectorSimulator:
        return VectorSimulator(Breaking(), num_envs, seed)

    node = Sebulba(WINDOWS, make, seed=4, **alone)
    with pytest.raises(NotFinite, match=r"environment 0 of 8 \(jax/Catch, seed 4\)") as caught:
        node.run()
    assert "after step 3 of its episode" in str(caught.value)
    seed = int(str(caught.value).split("replay_keys(")[1].split(",")[0])
    lanes = begin(Breaking(), 8, 4)
    assert seed == int(lanes.seed[0])
    state, _ = Breaking().reset(replay_keys(seed, 0))
    assert int(state.column) == int(lanes.state.column[0])


def test_more_environments_than_memory_holds_are_refused_with_an_estimate(alone: Any) -> None:
    with pytest.raises(UsageError, match=r"num_envs=8000000000 take \d+\.\d GiB .* leave half"):
        Sebulba(WINDOWS, ON_DEVICE, num_envs=8_000_000_000, **alone)


def test_one_device_is_shared_and_the_log_says_so(
    capsys: pytest.CaptureFixture[str], alone: Any
) -> None:
    Sebulba(WINDOWS, Catch, **alone)
    said = capsys.readouterr().out
    assert "1 actor thread and the learner share" in said
    assert "with more devices" in said


def test_devices_are_divided_so_that_batches_divide(capsys: pytest.CaptureFixture[str]) -> None:
    if len(jax.local_devices()) != 2:
        pytest.skip("needs two devices")
    Sebulba(WINDOWS, Catch)
    first, second = map(str, jax.local_devices())
    assert f"1 actor thread on {first}; the learner on {second}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 12}, "num_envs=12 environments do not divide into batches of 8"),
        ({"num_actors": 3}, "among num_actors=3;"),
        ({"num_actors": 0}, "num_actors=0"),
        ({"ahead": -1}, "ahead=-1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sebulba(WINDOWS, Catch, **options)


def test_an_agent_that_learns_from_transitions_is_refused() -> None:
    with pytest.raises(UsageError, match="dqn does not learn from windows"):
        Sebulba(DQNBuilder(), Catch)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("environment", ["jax/Catch", "Catch"])
def test_several_devices_learn_what_one_does(environment: str) -> None:
    flags = "--xla_force_host_platform_device_count=4"
    ask = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}

    def run(acting: int, learning: int) -> tuple[str, list[list[float]]]:
        command = [sys.executable, "-c", SEVERAL, str(acting), str(learning), environment]
        done = subprocess.run(command, env=ask, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
        said, leaves = done.stdout.splitlines()
        return said, json.loads(leaves)

    said, one = run(1, 1)
    assert "2 actor threads on cpu:0; the learner on cpu:3" in said
    for acting, learning in ((2, 2), (1, 2)):
        said, several = run(acting, learning)
        assert said.endswith("cpu:2, cpu:3")
        for a, b in zip(one, several, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
