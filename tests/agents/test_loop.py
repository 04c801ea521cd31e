"""The synchronous loop: any builder learns in one process, reproducibly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents.builder import AbstractBuilder, Batches
from lpml.agents.catch import Catch
from lpml.agents.loop import Result, train
from lpml.errors import NotFinite
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.replay import (
    AbstractCut,
    CutSequences,
    Fifo,
    MinSize,
    Queue,
    Sequences,
    Step,
    TableConfig,
)
from tests.agents.tiny import TinyBuilder, TinyConfig


def run(builder: AbstractBuilder, num_steps: int = 300, seed: int = 0, **options: Any) -> Result:
    return train(builder, Catch(4), num_steps=num_steps, seed=seed, **options)


def test_an_agent_learns_catch_and_stops_when_it_is_good_enough() -> None:
    result = train(
        TinyBuilder(),
        Catch(8),
        num_steps=8_000,
        eval_environment=Catch(20),
        evaluate_every=250,
        stop_return=0.95,
    )
    assert result.final_return >= 0.95
    assert result.steps < 8_000
    assert result.curve[-1] == (result.steps, result.final_return)
    assert jax.tree.map(np.shape, result.params) == {"w": (25, 3)}


def test_the_same_seed_gives_the_same_and_another_seed_does_not() -> None:
    first, again, other = (
        run(TinyBuilder(), seed=seed, eval_environment=Catch(5), episodes=5) for seed in (1, 1, 2)
    )
    assert first.curve == again.curve
    assert first.episode_returns == again.episode_returns
    np.testing.assert_array_equal(first.params["w"], again.params["w"])
    assert (first.params["w"] != other.params["w"]).any()


def test_evaluations_change_nothing_of_what_is_learned() -> None:
    with_them = run(TinyBuilder(), eval_environment=Catch(5), evaluate_every=100)
    without = run(TinyBuilder())
    assert [steps for steps, _ in with_them.curve] == [100, 200, 300]
    np.testing.assert_array_equal(with_them.params["w"], without.params["w"])
    assert without.curve == ()
    with pytest.raises(lpml.UsageError, match="give it an eval_environment"):
        _ = without.final_return


def test_samples_and_inserts_are_in_the_proportion_that_the_limiter_asks_for() -> None:
    config = TinyConfig(samples_per_insert=8.0, tolerance=128.0)
    result = run(TinyBuilder(config), num_steps=2_000)
    samples = result.updates * config.batch_size
    assert samples == pytest.approx(8.0 * result.steps, abs=8.0 * 128 + 2 * 128)


def test_an_insert_that_has_to_wait_lets_the_learner_go_on() -> None:
    """The items of one insert are many more than the limiter lets run ahead."""
    config = TinyConfig(samples_per_insert=8.0, batch_size=1, updates_per_step=1, tolerance=8.0)
    result = run(TinyBuilder(config), num_steps=200)
    assert result.updates > 300


def test_progress_is_reported() -> None:
    points: list[tuple[int, float]] = []
    result = run(
        TinyBuilder(),
        eval_environment=Catch(5),
        episodes=5,
        report=lambda steps, mean_return: points.append((steps, mean_return)),
    )
    assert tuple(points) == result.curve


def test_a_learner_that_diverges_ends_it() -> None:
    with pytest.raises(NotFinite, match="the metrics of update"):
        run(TinyBuilder(TinyConfig(rate=1e30)), num_steps=2_000)


@final
@dataclasses.dataclass(frozen=True)
class CountingBuilder(AbstractBuilder):
    """Learns nothing; its policy counts the steps of an episode and records the count."""

    name: ClassVar[str] = "counting"
    config: str = "queue"  # pyright: ignore[reportIncompatibleMethodOverride] - both frozen

    @property
    def batches(self) -> Batches:
        return Batches("rollouts", 2)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        zero = np.float32(0)
        extras = {"count": jax.ShapeDtypeStruct((), np.int32), "valid": np.bool_(True)}
        step = Step(spec.observation, spec.action, zero, zero, extras)
        if self.config == "queue":
            limiter: Any = Queue(4)
            return [
                TableConfig(
                    "rollouts", step, 4, Sequences(5), Fifo(), limiter=limiter, max_times_sampled=1
                )
            ]
        return [TableConfig("rollouts", step, 100, Sequences(5), limiter=MinSize(2))]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        return {"rollouts": CutSequences(5, across_episodes=True)}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
            extras = {"count": state, "valid": jnp.ones(state.shape, bool)}
            action = jnp.ones(state.shape, jnp.int32)
            return PolicyOutput(action, state + 1, extras, jnp.zeros(state.shape))

        extras = {
            "count": jax.ShapeDtypeStruct((), np.dtype(np.int32)),
            "valid": jax.ShapeDtypeStruct((), np.dtype(bool)),
        }
        return Policy(lambda num_envs: jnp.zeros((num_envs,), jnp.int32), act, extras)

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        def update(state: Any, experience: Experience) -> tuple[Any, Update]:
            steps = experience.data.steps
            row = jnp.argmax(steps.observation[:, :, :-1].max(axis=3), axis=2)
            wrong = jnp.sum(steps.extras["valid"] & (steps.extras["count"] != row))
            return {"wrong": state["wrong"] + wrong}, Update({"loss": jnp.zeros(())}, None)

        return Algorithm(
            lambda key: {"wrong": jnp.zeros((), jnp.int32)}, update, lambda state: state
        )


@pytest.mark.parametrize(("limiter", "updates"), [("queue", 36), ("min size", 70)])
def test_policies_with_a_memory_and_rollouts_in_a_queue(limiter: str, updates: int) -> None:
    """The count that the policy keeps is the row of the ball, in every recorded step."""
    result = run(CountingBuilder(limiter), num_steps=400)
    assert result.params["wrong"] == 0
    assert result.updates >= updates
