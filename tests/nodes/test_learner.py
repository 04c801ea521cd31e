"""The learner as a plain object: updates, parameters for others, priorities, what ends it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.errors import NotFinite
from lpml.nodes.counter import Counter
from lpml.nodes.learner import Learner, SampleSource
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.replay import Prefetcher, Replay, Sample, SampleInfo, TableConfig
from lpml.testing import VirtualClock, calls, fake, node

B = 4


def algorithm(rate: float = 0.5) -> Algorithm:
    """Moves `w` towards the mean of the data; its random key changes with each update."""

    def init(key: jax.Array) -> Any:
        w = jax.random.normal(key, ())
        return {"w": w, "key": key, "count": jnp.zeros((), jnp.int32)}

    def update(state: Any, experience: Experience) -> tuple[Any, Update]:
        error = experience.data - state["w"]
        w = state["w"] + rate * jnp.mean(error)
        key, _ = jax.random.split(state["key"])
        state = {"w": w, "key": key, "count": state["count"] + 1}
        metrics = {"loss": jnp.mean(error**2), "probability": jnp.mean(experience.probability)}
        return state, Update(metrics, jnp.abs(error))

    return Algorithm(init, update, lambda state: {"w": state["w"]})


def sample(values: np.ndarray[Any, Any]) -> Sample:
    count = len(values)
    info = SampleInfo(
        np.arange(count), np.full(count, 0.1), np.ones(count), np.ones(count, np.int64), 10
    )
    return Sample(values.astype(np.float32), info)


def forever(count: int = B, seed: int = 0) -> Generator[Sample, None, None]:
    rng = np.random.default_rng(seed)
    while True:
        yield sample(rng.normal(size=count))


def these(*samples: Sample) -> Generator[Sample, None, None]:
    yield from samples


def learner(samples: SampleSource | None = None, **options: Any) -> Learner:
    rows = B * options.get("updates_per_step", 1)
    options = {"batch_size": B, "synchronous": True, **options}
    return Learner(algorithm(), forever(rows) if samples is None else samples, **options)


def w(learner: Learner) -> float:
    return float(learner.pull().params["w"])


def test_several_updates_in_one_step_are_the_same_as_one_by_one() -> None:
    data = np.random.default_rng(0).normal(size=3 * B)
    three = learner(these(sample(data)), updates_per_step=3)
    one = learner(these(*[sample(part) for part in np.split(data, 3)]))
    assert three.step() == 3
    assert [one.step() for _ in range(3)] == [1, 2, 3]
    assert w(three) == pytest.approx(w(one), rel=1e-6)
    assert three.pull().version == one.pull().version == 3


def test_the_seed_decides() -> None:
    assert w(learner(seed=1)) == w(learner(seed=1)) != w(learner(seed=2))


def test_parameters_that_were_pulled_do_not_change() -> None:
    subject = learner()
    snapshot = subject.pull()
    subject.step()
    assert float(snapshot.params["w"]) == w(learner())
    assert subject.pull().version == snapshot.version + 1


def test_a_version_is_published_once_and_only_when_asked_for() -> None:
    subject = learner(synchronous=False)
    for _ in range(3):
        subject.step()
    assert subject.statistics().snapshots == 0
    first, second = subject.pull("actor/0"), subject.pull("actor/1")
    assert first.shared is second.shared
    assert isinstance(first.shared, lpml.Shared)
    assert subject.statistics().snapshots == 1


def test_a_pull_waits_for_the_version_it_asks_for() -> None:
    clock = VirtualClock()
    with node("learner/0", clock=clock):
        subject = learner()
        found: list[int] = []

        def pull() -> None:
            with node("actor/0", clock=clock):
                found.append(subject.pull(at_least=2).version)

        thread = threading.Thread(target=pull)
        thread.start()
        clock.until_waiting()
        subject.step()
        assert not found
        subject.step()
        thread.join()
    assert found == [2]


def test_a_pull_that_waits_in_vain_says_where_the_learner_is() -> None:
    with node(clock=VirtualClock(jump_when_waiting=1)):
        subject = learner()
        with pytest.raises(lpml.CallTimeout, match="version 5: the learner is at 0"):
            subject.pull("actor/0", at_least=5, timeout=1.0)


def test_priorities_go_to_the_items_they_are_of() -> None:
    replay = fake(Replay, update_priorities=lambda table, keys, priorities: len(keys))
    subject = learner(replay=replay, table="t", updates_per_step=2)
    start = w(subject)
    subject.step()
    (call,) = calls(replay)
    table, keys, priorities = call.args
    data = next(forever(2 * B)).data
    assert table == "t"
    assert keys.tolist() == list(range(2 * B))
    np.testing.assert_allclose(priorities[:B], np.abs(data[:B] - start), rtol=1e-5)


def test_priorities_of_every_step_arrive_in_the_end() -> None:
    done = threading.Semaphore(0)

    def update_priorities(table: str, keys: Any, priorities: Any) -> int:
        done.release()
        return len(keys)

    replay = fake(Replay, update_priorities=update_priorities)
    subject = learner(
        replay=replay, table="t", synchronous=False, max_updates=7, at_end=lambda params: None
    )
    with node("learner/0"):
        subject.run()
    for _ in range(7):
        assert done.acquire(timeout=10.0)


def test_it_learns_from_a_replay_that_it_prefetches_from() -> None:
    replay = Replay([TableConfig("t", np.float32(0), 100)])
    replay.add("t", np.full(50, 3.0, np.float32))
    with Prefetcher(replay, "t", 2 * B) as samples:
        subject = learner(samples, updates_per_step=2, replay=replay, table="t", synchronous=False)
        for _ in range(20):
            subject.step()
        assert w(subject) == pytest.approx(3.0, abs=1e-3)
    statistics = subject.statistics()
    assert (statistics.updates, statistics.steps) == (40, 20)
    assert statistics.waiting_seconds + statistics.updating_seconds <= statistics.seconds


def test_run_ends_after_its_updates_and_says_so() -> None:
    reasons: list[str] = []
    ends: list[Any] = []
    with node("learner/0", on_stop=reasons.append):
        subject = learner(max_updates=5, at_end=ends.append)
        subject.run()
        snapshot = subject.pull(at_least=1000)
    assert reasons == ["the learner made its 5 updates"]
    assert snapshot.version == 5
    assert snapshot.final
    assert float(ends[0]["w"]) == w(subject)


def test_run_ends_when_the_program_stops_while_it_waits_for_data() -> None:
    ends: list[Any] = []
    with node("learner/0", clock=VirtualClock()) as context:
        replay = Replay([TableConfig("t", np.float32(0), 100)])
        subject = learner(Prefetcher(replay, "t", B), at_end=ends.append)
        thread = threading.Thread(target=context.clock.stop)
        thread.start()
        subject.run()
        thread.join()
    assert len(ends) == 1


def test_a_loss_that_is_not_finite_names_node_and_update() -> None:
    bad = np.zeros(3 * B)
    bad[2 * B + 1] = np.nan
    with node("learner/0"):
        subject = learner(
            these(sample(np.zeros(3 * B)), sample(bad)),
            updates_per_step=3,
        )
        subject.step()
        with pytest.raises(NotFinite, match="learner/0: the metrics of update 6 are not finite"):
            subject.step()


def test_parameters_of_a_learner_that_diverged_are_not_given_away() -> None:
    with node("learner/0", clock=VirtualClock(jump_when_waiting=1)):
        subject = learner(these(*[sample(np.full(B, np.inf))] * 2), synchronous=False)
        subject.step()
        with pytest.raises(NotFinite, match="update 1 "):
            subject.pull()
        with pytest.raises(NotFinite, match="update 1 "):
            subject.step()


def test_a_restored_learner_goes_on_the_same() -> None:
    samples = [next(forever(seed=seed)) for seed in range(2)]
    first, second = learner(these(*samples), seed=1), learner(these(samples[1]), seed=2)
    first.step()
    saved = first.save()
    assert isinstance(first, lpml.Checkpointable)
    second.restore(saved)
    assert second.pull().version == 1
    for subject in (first, second):
        subject.step()
    ends = first.save()["state"], second.save()["state"]
    assert {name: array.tolist() for name, array in ends[0].items()} == {
        name: array.tolist() for name, array in ends[1].items()
    }


def test_what_another_algorithm_saved_is_refused() -> None:
    saved = learner().save()
    saved["state"]["['w']"] = np.zeros((2,), np.float32)
    with pytest.raises(lpml.UsageError, match=r"\['w'\] was saved with shape \(2,\)"):
        learner().restore(saved)


def test_updates_are_counted() -> None:
    counter = Counter()
    with node("learner/0"):
        subject = learner(counter=counter, updates_per_step=2, max_updates=6)
        subject.run()
    assert counter.get()["learner_steps"] == 6


def test_metrics_and_rates_are_logged_now_and_then() -> None:
    with node("learner/0") as context:
        subject = learner(log_seconds=0.0)
        subject.step()
        assert context.latest_metrics["probability"] == pytest.approx(0.1)
        assert context.latest_metrics["updates_per_second"] > 0
        assert context.latest_progress == (1, None)


def test_it_compiles_once_also_where_the_state_is_weakly_typed() -> None:
    traces: list[int] = []

    def update(state: Any, experience: Experience) -> tuple[Any, Update]:
        traces.append(1)
        return {"w": 2.0, "n": state["n"] + 1}, Update({"loss": jnp.zeros(())}, None)

    weak = Algorithm(lambda key: {"w": 1.0, "n": 0}, update, lambda state: state)
    with node("learner/0"):
        subject = Learner(
            weak, forever(), batch_size=B, max_updates=4, example=next(forever(seed=9))
        )
        subject.run()
    assert len(traces) == 1


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(lpml.UsageError, match="updates_per_step=0"):
        learner(updates_per_step=0)
