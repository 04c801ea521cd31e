"""The digits task, its worker and its evaluator as plain objects."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import lpml
from lpml.nodes import Asynchronous, ParameterServer, Synchronous
from lpml.programs.supervised import digits, single_loop
from lpml.testing import node

SEED = 3


def server(**options: Any) -> ParameterServer:
    return ParameterServer(digits.init_params(SEED), optax.sgd(0.2), **options)


def test_the_data_are_split_and_centred_as_documented() -> None:
    train, test = digits.load()
    assert (train.images.shape, test.images.shape) == ((1347, 64), (450, 64))
    assert (train.images.dtype, train.labels.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(train.images.mean(axis=0), 0, atol=1e-6)
    assert np.abs(test.images).max() <= 2
    assert np.bincount(test.labels).tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]


def test_parameters_depend_on_the_seed_alone_and_are_he_normal() -> None:
    first, again, other = digits.init_params(1), digits.init_params(1), digits.init_params(2)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    weights = [leaf for leaf in jax.tree.leaves(first) if leaf.ndim == 2]
    assert [leaf.shape for leaf in weights] == [(64, 256), (256, 256), (256, 10)]
    for leaf, different in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        if leaf.ndim == 2:
            assert leaf.std() == pytest.approx(np.sqrt(2 / leaf.shape[0]), rel=0.05)
            assert not (leaf == different).any()
        else:
            assert not leaf.any()


def test_shards_cover_the_data_once_per_epoch() -> None:
    images = np.arange(1347, dtype=np.float32)[:, None]
    examples = digits.Examples(images, np.zeros(1347, np.int32))
    seen: list[float] = []
    for shard, size in ((0, 449), (1, 449), (2, 449)):
        stream = digits.batches(examples, size, seed=0, shard=shard, num_shards=3)
        seen += next(stream)[0][:, 0].tolist()
        again = next(stream)[0][:, 0].tolist()
        assert sorted(again) == sorted(seen[-449:])
        assert again != seen[-449:]
    assert sorted(seen) == images[:, 0].tolist()


def test_batches_run_on_from_one_epoch_to_the_next() -> None:
    examples = digits.Examples(np.arange(5.0)[:, None], np.arange(5, dtype=np.int32))
    stream = digits.batches(examples, 2, seed=0)
    labels = np.concatenate([next(stream)[1] for _ in range(5)])
    assert sorted(labels[:5]) == sorted(labels[5:]) == [0, 1, 2, 3, 4]


def test_a_batch_larger_than_its_shard_takes_several_epochs() -> None:
    examples = digits.Examples(np.arange(5.0)[:, None], np.arange(5, dtype=np.int32))
    _, labels = next(digits.batches(examples, 4, seed=0, shard=1, num_shards=2))
    assert sorted(labels) == [1, 1, 3, 3]


@pytest.mark.parametrize(("batch_size", "num_shards"), [(0, 1), (64, 1348)])
def test_no_batch_and_no_examples_are_refused(batch_size: int, num_shards: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: shard"):
        next(digits.batches(digits.load()[0], batch_size, 0, num_shards - 1, num_shards))


def test_one_worker_does_exactly_what_the_single_loop_does() -> None:
    ps = server(max_updates=20)
    with node("worker/0"):
        digits.Worker(ps, seed=SEED).run()
    expected, _ = single_loop.train(20, seed=SEED)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5),
        ps.pull().params,
        jax.tree.map(np.asarray, expected),
    )
    statistics = ps.statistics()
    assert (statistics.staleness, statistics.departed) == ({0: 20}, ("worker/0",))


def test_synchronous_workers_do_what_one_does_with_their_batches_together() -> None:
    ps = server(mode=Synchronous(2), max_updates=10)
    streams = [digits.batches(digits.load()[0], 32, SEED, shard, 2) for shard in range(2)]
    params: Any = digits.init_params(SEED)
    for version in range(10):
        parts = [next(stream) for stream in streams]
        for name, part in zip("ab", parts, strict=True):
            _, grads = digits.loss_and_gradient(ps.pull().params, *part)
            ps.push(name, grads, version=version, weight=32)
        both = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        _, grads = digits.loss_and_gradient(params, *both)
        params = jax.tree.map(lambda p, g: p - np.float32(0.2) * np.asarray(g), params, grads)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5),
        ps.pull().params,
        params,
    )


def test_a_worker_that_overlaps_is_one_update_behind() -> None:
    ps = server(max_updates=20)
    with node("worker/0"):
        digits.Worker(ps, overlap=True, seed=SEED).run()
    statistics = ps.statistics()
    assert statistics.version == 20
    assert 0.8 <= statistics.mean_staleness <= 1.2
    assert statistics.departed == ("worker/0",)


def test_a_worker_leaves_when_the_program_stops() -> None:
    ps = server()
    with node("worker/0") as context:
        context.clock.stop()
        digits.Worker(ps, seed=SEED).run()
    assert ps.statistics().departed == ("worker/0",)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_worker_goes_on_when_its_server_was_replaced_during_its_call(overlap: bool) -> None:
    ps = server(max_updates=5)

    class Replaced:
        """A server each third call of which is under way when it dies."""

        calls = 0
        pull, leave = ps.pull, ps.leave

        def exchange(self, *args: Any, **kwargs: Any) -> Any:
            snapshot = ps.exchange(*args, **kwargs)
            self.calls += 1
            if self.calls % 3 == 0:
                raise lpml.NodeUnavailable("it died, and has the update all the same")
            return snapshot

    replaced: Any = Replaced()
    digits.Worker(replaced, overlap=overlap).run()
    assert (ps.statistics().version, ps.statistics().members) == (5, ())


def test_a_worker_reports_its_loss(tmp_path: Path) -> None:
    ps = server(max_updates=20)
    with node("worker/0", directory=tmp_path):
        digits.Worker(ps, seed=SEED).run()
    lines = (tmp_path / "metrics" / "worker-0.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [10, 20]
    assert all(0 < row["loss"] < 5 for row in rows)


def test_the_evaluator_measures_announces_and_ends_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reasons: list[str] = []
    ps = server(mode=Asynchronous(), max_updates=0)
    with node("evaluator/0", on_stop=reasons.append) as context:
        digits.Evaluator(ps, updates=0).run()
    correct = np.asarray(
        digits.network.apply(ps.pull().params, None, digits.load()[1].images).argmax(axis=-1)
    )
    accuracy = float((correct == digits.load()[1].labels).mean())
    assert context.latest_metrics["accuracy"] == pytest.approx(accuracy)
    assert context.latest_progress == (0, 0)
    assert reasons == [capsys.readouterr().out.strip()]
    assert reasons[0].startswith(f"test accuracy {accuracy:.1%} (")


def test_the_evaluator_ends_the_program_at_its_target() -> None:
    reasons: list[str] = []
    ps = server()
    with node("evaluator/0", on_stop=reasons.append):
        digits.Evaluator(ps, updates=100, target=0.0).run()
    assert "after 0 updates" in reasons[0]


def test_the_evaluator_follows_the_updates() -> None:
    ps = server(max_updates=30)

    def train() -> None:
        with node("worker/0"):
            digits.Worker(ps, seed=SEED).run()

    thread = threading.Thread(target=train)
    with node("evaluator/0", on_stop=lambda reason: None) as context:
        thread.start()
        digits.Evaluator(ps, updates=30, every=10).run()
    thread.join()
    assert context.latest_progress == (30, 30)
    assert context.latest_metrics["accuracy"] > 0.5


def test_the_factory_refuses_backup_workers_where_nobody_waits() -> None:
    from lpml.programs.supervised.parameter_server import program

    with pytest.raises(lpml.UsageError, match="backup_workers=1 with mode=asynchronous"):
        program(backup_workers=1)
