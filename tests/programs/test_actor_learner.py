"""Any agent spread over nodes, with the smallest one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import lpml
from lpml.agents import load_policy, make_environment
from lpml.nodes.counter import Counter
from lpml.nodes.learner import Learner
from lpml.programs.actor_learner import actor_learner
from lpml.record.checkpoints import latest_of
from lpml.testing import running, service
from tests.agents import tiny
from tests.agents.tiny import TinyBuilder, TinyConfig
from tests.metrics import logged


@pytest.fixture(autouse=True, scope="module")
def _the_agent_travels() -> Iterator[None]:
    """Nodes cannot import the tests."""
    cloudpickle.register_pickle_by_value(tiny)
    yield
    cloudpickle.unregister_pickle_by_value(tiny)


def program(builder: TinyBuilder = TinyBuilder(), **options: Any) -> lpml.Program:  # noqa: B008
    options = {"num_actors": 1, "envs_per_actor": 4, "evaluation_episodes": 0, **options}
    return actor_learner(builder, "Catch", **options)


def test_every_role_has_its_node() -> None:
    graph = program(num_actors=3, num_replays=2, evaluation_episodes=20, target_return=0.9)
    assert sorted(node.name for node in graph.nodes) == [
        *("actor/0", "actor/1", "actor/2", "counter/0", "evaluator/0", "learner/0"),
        *("replay/0", "replay/1", "stopper/0"),
    ]
    lpml.compile(graph, "local_mp")


def test_every_learner_has_actors_servers_and_replays_of_its_own() -> None:
    graph = program(
        num_learners=2, num_actors=2, num_replays=2, num_inference_servers=1, evaluation_episodes=1
    )
    nodes = {node.name: {edge.target for edge in node.edges} for node in lpml.compile(graph).nodes}
    assert {name: nodes[name] for name in ("learner/1", "actor/2", "actor/3", "inference/1")} == {
        "learner/1": {"replay/2", "replay/3", "average/0", "counter/0"},
        "actor/2": {"learner/1", "inference/1", "replay/2", "replay/3", "counter/0"},
        "actor/3": {"learner/1", "inference/1", "replay/2", "replay/3", "counter/0"},
        "inference/1": {"learner/1"},
    }
    assert "learner/0" in nodes["evaluator/0"]
    assert sum("actor" in name for name in nodes) == 4


def test_several_learners_learn_together_and_one_leaves_the_policy(runs: Path) -> None:
    graph = program(num_learners=2, evaluation_episodes=20, target_return=0.9, max_seconds=90.0)
    with running(graph, "test", directory=runs) as run:
        learners = [service(run, f"learner/{i}", Learner) for i in range(2)]
        outcome = run.wait(100)
    assert "over 20 episodes reached 0.9" in outcome.reason
    updates = [learner.statistics().updates for learner in learners]
    assert abs(updates[0] - updates[1]) <= TinyConfig().updates_per_step
    logs = [run.folder.log_file(f"learner/{i}").read_text() for i in range(2)]
    assert ["the policy is in" in log for log in logs] == [True, False]


def test_it_learns_until_the_evaluator_is_content_and_leaves_the_policy(runs: Path) -> None:
    graph = program(evaluation_episodes=20, target_return=0.9, max_seconds=90.0)
    with running(graph, "test", directory=runs) as run:
        outcome = run.wait(100)
    assert outcome.state == "finished"
    assert "over 20 episodes reached 0.9" in outcome.reason
    assert max(row["evaluator_return"] for row in logged(run, "evaluator/0")) >= 0.9
    assert any("updates_per_second" in row for row in logged(run, "learner/0"))
    policy = load_policy(run.folder.path / "policy", builder=TinyBuilder)
    environment = make_environment("Catch", 20, seed=5)
    action = policy(environment.reset(5))
    assert action.shape == (20,)


def test_it_stops_after_its_steps_and_keeps_the_proportion(runs: Path) -> None:
    config = TinyConfig(samples_per_insert=8.0, tolerance=256.0)
    graph = program(TinyBuilder(config), num_actors=2, max_actor_steps=2_000)
    with running(graph, "test", directory=runs) as run:
        counter = service(run, "counter/0", Counter)
        learner = service(run, "learner/0", Learner)
        outcome = run.wait(100)
    assert "actor_steps reached 2000" in outcome.reason
    assert counter.get()["actor_steps"] >= 2_000
    samples = learner.statistics().updates * config.batch_size
    steps = logged(run, "actor/0")[-1]["step"] + logged(run, "actor/1")[-1]["step"]
    assert samples <= 8.0 * (steps + 4_000) + 256


@pytest.mark.slow
def test_several_replays_look_like_one(runs: Path) -> None:
    graph = program(num_actors=2, num_replays=2, max_seconds=60.0)
    with running(graph, "test", directory=runs) as run:
        learner = service(run, "learner/0", Learner)
        assert learner.pull(at_least=50, timeout=60.0).version >= 50
        run.stop("enough")


@pytest.mark.slow
def test_processes_stop_soon_after_they_were_asked(runs: Path) -> None:
    graph = program(num_actors=2, evaluation_episodes=5)
    with running(graph, "local_mp", directory=runs) as run:
        learner: Learner = run.client("learner/0")
        with lpml.deadline(None):
            learner.pull(at_least=10)
        clock = lpml.context().clock
        began = clock.time()
        run.stop("enough")
        outcome = run.wait(30)
        seconds = clock.time() - began
    assert outcome.state == "finished" or outcome.reason == "enough"
    assert seconds < 10.0, "two on a machine that does nothing else"
    assert (run.folder.path / "policy" / "policy.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_actors": 0}, "num_actors=0"),
        ({"num_replays": 0}, "num_replays=0"),
        ({"num_learners": 0}, "num_learners=0: give at least 1"),
        ({"target_return": 1.0}, "nobody would measure it"),
        ({"target_return": float("nan"), "evaluation_episodes": 1}, "no return reaches it"),
    ],
)
def test_numbers_that_make_no_program_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(lpml.UsageError, match=message):
        program(**options)


def test_an_environment_that_is_not_there_is_refused_before_anything_starts() -> None:
    with pytest.raises(lpml.UsageError, match="Cathc"):
        actor_learner(TinyBuilder(), "Cathc")


def test_a_table_that_could_never_be_sampled_is_refused_before_anything_starts() -> None:
    with pytest.raises(lpml.UsageError, match="wait for each other"):
        program(TinyBuilder(TinyConfig(tolerance=1.0)))


@pytest.mark.slow
def test_actors_may_ask_a_server_for_their_actions(runs: Path) -> None:
    graph = program(num_actors=3, num_inference_servers=2, max_seconds=60.0)
    with running(graph, "test", directory=runs) as run:
        learner = service(run, "learner/0", Learner)
        assert learner.pull(at_least=50, timeout=60.0).version >= 50
        run.stop("enough")


@pytest.mark.slow
def test_a_run_goes_on_from_its_last_checkpoint(runs: Path) -> None:
    """Not from where it ended: nodes go on between the last checkpoint and the end."""
    with running(program(), "local_mt", directory=runs, checkpoint_every=60.0) as run:
        service(run, "learner/0", Learner).pull(at_least=20, timeout=60.0)
        run.stop("enough")  # takes a last checkpoint
    cut = latest_of(run.folder)
    assert cut is not None
    before = cut.load("learner/0")["updates"]
    parts = cut.load("counter/0")["parts"].values()
    steps = sum(part.get("actor_steps", 0) for part in parts)
    assert before >= 20
    assert steps > 0
    with running(program(), "local_mt", resume=run.folder.path) as again:
        learner = service(again, "learner/0", Learner)
        counter = service(again, "counter/0", Counter)
        assert learner.pull().version >= before
        learner.pull(at_least=before + 20, timeout=60.0)
        assert counter.get()["actor_steps"] >= steps
        again.stop("enough")
