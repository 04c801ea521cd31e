"""How the loop on the device learns from a replay, in proportion to what it brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
import pytest

import lpml
from lpml.agents.dqn import DQNBuilder, DQNConfig
from lpml.agents.fused import Fused
from lpml.agents.jax_environments import Catch
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.replay import AbstractCut, CutSequences
from tests.agents.tiny import TinyBuilder, TinyConfig

ONE = jax.devices()[:1]


def make(num_envs: int, iterations: int, **options: float) -> Fused:
    builder = TinyBuilder(TinyConfig(**options))  # type: ignore[arg-type]
    return Fused(builder, Catch(), num_envs=num_envs, iterations=iterations, devices=ONE)


@pytest.fixture(scope="module")
def fused() -> Fused:
    """Nine ticks a call: then the first items are complete."""
    return make(8, 9)


def test_an_agent_with_a_replay_learns_catch_in_the_loop(fused: Fused) -> None:
    state, returns = fused.init(0), []
    for _ in range(100):
        state, report = fused.call(state)
        returns.append(float(report.sums.returns) / max(1, int(report.sums.episodes)))
    # Three actions in ten are random still; if all are, the mean return is -0.6.
    assert np.mean(returns[-40:]) > 0.2


def test_there_is_no_update_before_the_replay_holds_enough(fused: Fused) -> None:
    begin = fused.init(0)
    weights = np.asarray(begin.learner["w"])
    state, report = fused.call(begin)
    assert (int(report.updates), int(state.version), float(report.metrics["loss"])) == (0, 0, 0)
    np.testing.assert_array_equal(weights, state.learner["w"])
    state, report = fused.call(state)
    assert int(state.version) == int(report.updates) > 0
    assert float(report.metrics["loss"]) > 0
    assert not np.array_equal(weights, state.learner["w"])


@pytest.mark.parametrize(
    ("num_envs", "samples_per_insert", "ticks", "updates"),
    [(16, 16.0, 1, 8), (1, 16.0, 4, 2), (3, 32.0, 2, 6), (1, 0.1, 64, 2)],
)
def test_ticks_and_updates_are_as_the_limiter_says(
    num_envs: int, samples_per_insert: float, ticks: int, updates: int
) -> None:
    fused = make(num_envs, 1, samples_per_insert=samples_per_insert)
    assert (fused.length, fused.updates) == (ticks, updates)


def test_a_share_of_the_replay_that_holds_no_item_is_refused() -> None:
    builder = DQNBuilder(DQNConfig(replay_size=1000))
    with pytest.raises(lpml.UsageError, match=r"100 environments .* 10 steps, fewer than the 11"):
        Fused(builder, Catch(), num_envs=100, devices=ONE)


@dataclass(frozen=True)
class Odd(TinyBuilder):
    """Cuts what its table does not hold."""

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        return {"replay": CutSequences(5)}


def test_an_agent_that_learns_from_something_else_is_refused() -> None:
    with pytest.raises(lpml.UsageError, match=r"tiny learns from Transitions.*cut by CutSequences"):
        Fused(Odd(), Catch(), devices=ONE)
