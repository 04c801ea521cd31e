"""The program whose halves learn from each other: the parts, the graph, and what it is for."""

from __future__ import annotations

import dataclasses
import functools
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpml
from lpml.agents import catch, load_policy, make_environment, save_policy
from lpml.agents.jax_environments import Catch
from lpml.agents.ppo import PPOBuilder
from lpml.graph import edges
from lpml.nodes import Flat, Learner, ParameterServer
from lpml.nodes.experience import example_batch
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Adder, MinSize, Replay, Sample
from lpml.nodes.simulator import VectorSimulator
from lpml.programs.world_and_labels import labels
from lpml.programs.world_and_labels.agent import (
    FRAMES,
    EncodedPPOBuilder,
    EncodedPPOConfig,
    Refreshed,
)
from lpml.programs.world_and_labels.labels import Examiner, HeldOut, Worker
from lpml.programs.world_and_labels.program import WORLDS, program
from lpml.programs.world_and_labels.snow import DEPTH, Snow
from lpml.record.checkpoints import latest_of
from lpml.testing import node, running, service
from tests.metrics import logged

WORLD = WORLDS["snowy/Catch"]
SMALL = EncodedPPOConfig(
    unroll_length=4, hidden=(8,), minibatches=2, epochs=1, features=6, pixel_units=2
)
E = SMALL.batch_size
TICKS = 300


SPEC = Snow(Catch(), name=WORLD).spec


@functools.cache
def filled() -> Replay:
    """A replay with what random actions led to, and no limiter."""
    builder = EncodedPPOBuilder(SMALL)
    tables = [
        dataclasses.replace(table, limiter=MinSize(1), max_times_sampled=None, max_size=5000)
        for table in builder.tables(SPEC)
    ]
    replay, rng = Replay(tables), np.random.default_rng(0)
    adder = Adder(replay, builder.cuts(SPEC), num_envs=E)
    environment = catch.Catch(E, 3)  # that of the host, which is not compiled
    extras = {"log_prob": np.full(E, -1.1, np.float32), "valid": np.ones(E, bool)}

    def snowy(board: Any) -> Any:
        return np.maximum(board, rng.uniform(0, DEPTH, board.shape).astype(np.float32))

    observation, begins = snowy(environment.reset(3)), np.ones(E, bool)
    for _ in range(TICKS):
        if begins.any():
            adder.first(observation, begins)
        action = rng.integers(3, size=E).astype(np.int32)
        step = environment.step(action)
        adder.add(
            action, step.reward, step.discount, snowy(step.arrival), extras,
            last=step.last, envs=step.valid,
        )  # fmt: skip
        observation, begins = snowy(step.observation), step.begins
    adder.close()
    return replay


def experience(sample: Sample, data: Any) -> Experience:
    return Experience(data, jnp.asarray(sample.info.probabilities, jnp.float32), jnp.float32(1))


def test_snow_hides_nothing_that_is_brighter_and_moves_nothing() -> None:
    plain, snowy = VectorSimulator(Catch(), 4, 7), VectorSimulator(Snow(Catch(), 0.6), 4, 7)
    before, first = plain.reset(7), snowy.reset(7)
    np.testing.assert_array_equal(first == 1, before == 1)
    assert 0.5 < first[before == 0].max() < 0.6
    other = snowy.step(np.zeros(4, np.int32))
    plain.step(np.zeros(4, np.int32))
    for tick in range(12):
        action = np.full(4, tick % 3, np.int32)
        one, other = plain.step(action), snowy.step(action)
        np.testing.assert_array_equal(other.observation == 1, one.observation == 1)
        np.testing.assert_array_equal(other.reward, one.reward)
    assert (first != other.observation).mean() > 0.9, "it falls anew"


def test_each_half_has_its_nodes_and_they_are_joined_where_the_page_says() -> None:
    graph = program(num_actors=2, num_workers=3)
    lpml.compile(graph, "local_mp")
    assert sorted(node.name for node in graph.nodes) == [
        *("actor/0", "actor/1", "counter/0", "encoder/0", "evaluator/0", "examiner/0"),
        *("held_out/0", "learner/0", "replay/0", "stopper/0", "worker/0", "worker/1", "worker/2"),
    ]
    held = {(edge.source, edge.target) for edge in edges(graph)}
    assert {("worker/2", "replay/0"), ("worker/2", "encoder/0")} <= held
    assert {("learner/0", "replay/0"), ("learner/0", "encoder/0")} <= held
    assert ("actor/0", "encoder/0") not in held, "actors get the pair, from the learner"
    lpml.compile(program(num_workers=0), "local_mp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_actors": 0}, "num_actors=0: give at least 1"),
        ({"num_workers": -1}, "num_workers=-1: give at least 0"),
        ({"refresh": 0}, "refresh=0"),
        ({"encoder_rate": 0.0}, "encoder_rate=0.0: give one above 0"),
        ({"env": "snowy/Cathc"}, "'snowy/Cathc': .* did you mean 'snowy/Catch'"),
        ({"env": "snowy/Tetris"}, "snowy/"),
        ({"env": "jax/Pendulum-v1"}, "one of several actions"),
        ({"envs_per_actor": 3, "config": EncodedPPOConfig(unroll_length=9)}, "do not divide"),
    ],
)
def test_what_makes_no_program_is_refused_before_anything_starts(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(lpml.UsageError, match=message):
        program(**options)


@pytest.mark.parametrize("options", [{"features": 0}, {"samples_per_frame": -1.0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(lpml.UsageError, match=next(iter(options))):
        EncodedPPOConfig(**options)


def test_a_step_is_stored_once_for_both_halves() -> None:
    replay = filled()
    statistics = replay.statistics()
    rows, episodes = TICKS * E, TICKS * E / 9
    assert statistics.tables[FRAMES].size == pytest.approx(rows, rel=0.02)
    assert statistics.tables["rollouts"].size * SMALL.unroll_length == pytest.approx(
        rows + episodes, rel=0.02
    )
    assert statistics.steps <= rows + episodes + 2 * E, "not twice as many"
    batch = replay.sample(FRAMES, 64).data
    ball_fell = [
        np.argwhere(after == 1)[0, 0] == np.argwhere(before == 1)[0, 0] + 1
        for before, after in zip(batch.observation, batch.next_observation, strict=True)
    ]
    assert all(ball_fell), "the label of a frame is the next one of its episode"


def test_workers_learn_to_foretell_what_matters_and_not_the_snow(tmp_path: Path) -> None:
    builder = EncodedPPOBuilder(dataclasses.replace(SMALL, features=16, pixel_units=8))
    model, replay = builder.model(SPEC), filled()
    server = ParameterServer(model.init(), optax.adam(1e-2), max_updates=500)
    with node("worker/0", directory=tmp_path):
        Worker(model, server, replay, batch_size=64).run()
    assert server.statistics().departed == ("worker/0",)
    with node("examiner/0") as context:
        held_out = HeldOut(WORLD, size=500)
        examiner, examples = Examiner(model, server, held_out), held_out.examples()
        first = labels.measure(model, model.init(), *examples)
        loss, foretold = examiner.measure(server.pull(), examples)
        assert context.latest_metrics["foretold"] == foretold
    assert loss < 0.5 * float(first[0])
    assert float(first[1]) < 0.1
    assert foretold > 0.8
    # 48 pixels of a flake of variance 0.6 ** 2 / 12 cannot be foretold by anybody
    assert loss > 0.6**2 / 12 * 47 / 50


def test_an_update_is_that_of_ppo_on_the_features_of_the_encoder_it_came_with() -> None:
    builder = EncodedPPOBuilder(SMALL)
    algorithm, model = builder.algorithm(SPEC), builder.model(SPEC)
    sample = filled().sample("rollouts", SMALL.batch_size)
    fresh = model.init(seed=5).encoder
    state, update = jax.jit(algorithm.update)(
        algorithm.init(jax.random.key(1)),
        experience(sample, Refreshed(sample.data, fresh, np.float32(7))),
    )
    features = jax.ShapeDtypeStruct((SMALL.features,), np.dtype(np.float32))
    ppo = PPOBuilder(SMALL).algorithm(dataclasses.replace(SPEC, observation=features))
    steps = sample.data.steps
    seen = sample.data._replace(
        steps=steps._replace(observation=model.encode(fresh, steps.observation))
    )
    expected, _ = jax.jit(ppo.update)(ppo.init(jax.random.key(1)), experience(sample, seen))
    variables = algorithm.variables(state)
    jax.tree.map(np.testing.assert_array_equal, variables.encoder, fresh)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6),
        variables.head,
        ppo.variables(expected),
    )
    assert float(update.metrics["encoder_version"]) == 7


def test_without_anybody_who_trains_it_the_encoder_stays_as_it_was_drawn() -> None:
    builder = EncodedPPOBuilder(dataclasses.replace(SMALL, encoder_seed=4))
    algorithm = builder.algorithm(SPEC)
    sample = filled().sample("rollouts", SMALL.batch_size)
    state, _ = jax.jit(algorithm.update)(
        algorithm.init(jax.random.key(1)), experience(sample, sample.data)
    )
    drawn = builder.model(SPEC).init(4).encoder
    jax.tree.map(np.testing.assert_array_equal, algorithm.variables(state).encoder, drawn)


def test_batches_come_with_the_newest_encoder_now_and_then() -> None:
    model = EncodedPPOBuilder(SMALL).model(SPEC)
    server = ParameterServer(model.init(), optax.sgd(1.0))
    batches = labels.EncodedBatches(filled(), "rollouts", 2, server, refresh=2)
    versions = []
    for _ in range(9):
        versions.append(float(next(batches).data.version))
        snapshot = server.pull()
        ones = jax.tree.map(np.ones_like, snapshot.params)
        server.push("worker/0", Flat.of(ones), version=snapshot.version)
    batches.close()
    assert versions == sorted(versions)
    assert versions[0] == 0
    assert 3 <= versions[-1] <= 8
    assert len(set(versions)) <= 5, "not at every batch"


def test_a_saved_policy_sees_frames(tmp_path: Path) -> None:
    builder = EncodedPPOBuilder(SMALL)
    algorithm = builder.algorithm(SPEC)
    params = algorithm.variables(algorithm.init(jax.random.key(0)))
    save_policy(tmp_path, builder, SPEC, params)
    loaded = load_policy(tmp_path)
    assert loaded.builder == builder
    frames = np.random.default_rng(0).random((5, 10, 5), np.float32)
    policy = builder.policy(SPEC, evaluation=True)
    output = policy.act(params, jax.random.key(0), frames, policy.init(5))
    np.testing.assert_array_equal(loaded(frames), output.action)
    table, _ = builder.tables(SPEC)
    batch = example_batch(table, builder.cuts(SPEC)["rollouts"], 2)
    assert batch.data.steps.observation.shape == (2, SMALL.unroll_length + 1, 10, 5)


def played(run: lpml.Run, episodes: int = 100) -> float:
    """The mean return of the policy that a run has left."""
    policy = load_policy(run.folder.path / "policy")
    environment = make_environment(WORLD, episodes, seed=5)
    observation, total = environment.reset(5), 0.0
    for _ in range(9):
        step = environment.step(policy(observation))
        observation, total = step.observation, total + step.reward.sum()
    return float(total / episodes)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(3))
def test_the_learnt_encoder_is_what_the_agent_needs(seed: int, runs: Path) -> None:
    """The claim: solved with the other half, and far from it without, in twice the steps."""
    graph = program(num_workers=1, max_actor_steps=40_000, seed=seed)
    with running(graph, "test", timeout=600, directory=runs) as run:
        outcome = run.wait(600)
    assert "reached 0.95" in outcome.reason
    assert played(run) >= 0.9
    examined, steps = logged(run, "examiner/0"), logged(run, "evaluator/0")[-1]["step"]
    assert examined[-1]["validation_loss"] < 0.25 * examined[0]["validation_loss"]
    assert examined[0]["foretold"] < 0.1
    assert examined[-1]["foretold"] > 0.95
    budget = int(2 * steps)
    graph = program(num_workers=0, max_actor_steps=budget, seed=seed)
    with running(graph, "test", timeout=600, directory=runs) as run:
        outcome = run.wait(600)
    assert f"reached {budget}" in outcome.reason
    without = played(run)
    print(f"seed {seed}: solved after {steps} steps; without, {without} after {budget}")
    assert without < 0.7


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_solves_on_processes_and_leaves_a_policy_that_plays(runs: Path) -> None:
    with running(program(), "local_mp", timeout=280, directory=runs) as run:
        outcome = run.wait(280)
    assert (outcome.state, "reached 0.95" in outcome.reason) == ("finished", True)
    assert played(run) >= 0.8


def await_evaluations(run: lpml.Run) -> None:
    """All that is compiled is, then."""
    pause, files = threading.Event(), [run.folder.metrics_file("evaluator/0")]
    while not all(file.exists() and file.stat().st_size for file in files):
        assert not pause.wait(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_halves_go_on_from_one_checkpoint(runs: Path) -> None:
    graph = functools.partial(program, config=SMALL, target_return=2.0, evaluation_episodes=5)
    with running(graph(), "local_mt", timeout=400, directory=runs, checkpoint_every=60.0) as run:
        service(run, "encoder/0", ParameterServer, 90.0).pull(at_least=200, timeout=120.0)
        service(run, "learner/0", Learner, 90.0).pull(at_least=20, timeout=120.0)
        await_evaluations(run)
        run.stop("enough")  # takes a last checkpoint
    cut = latest_of(run.folder)
    trained, updates = cut.load("encoder/0")["version"], cut.load("learner/0")["version"]
    assert (trained >= 200, updates >= 20) == (True, True)
    before = len(logged(run, "evaluator/0"))
    with running(graph(), "local_mt", timeout=400, resume=run.folder.path) as again:
        encoder = service(again, "encoder/0", ParameterServer, 90.0)
        learner = service(again, "learner/0", Learner, 90.0)
        assert encoder.pull().version >= trained
        assert learner.pull().version >= updates
        encoder.pull(at_least=trained + 20, timeout=120.0)
        learner.pull(at_least=updates + 10, timeout=120.0)
        while len(logged(again, "evaluator/0")) <= before:
            assert not threading.Event().wait(0.05)
        again.stop("enough")
