"""What a running node may ask."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import lpml
from lpml.context import Context, entered
from lpml.testing import VirtualClock, node


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_outside_a_node_nothing_stops_and_nothing_is_recorded() -> None:
    context = lpml.context()
    assert context.name == "standalone/0"
    assert not context.should_stop
    context.log({"loss": 1.0})
    context.stop_program("nobody listens")
    assert not context.should_stop
    assert context.directory is None


def test_a_node_knows_its_name() -> None:
    with node("outer/worker/3") as context:
        assert lpml.context() is context
        assert (context.name, context.group, context.index) == ("outer/worker/3", "outer/worker", 3)
    assert lpml.context() is not context


def test_nodes_nest_and_come_back() -> None:
    with node("a/0") as first:
        with node("b/0") as second:
            assert lpml.context() is second
        assert lpml.context() is first


def test_each_thread_is_in_its_own_node() -> None:
    names: dict[str, str] = {}
    both = threading.Barrier(2)

    def ask(name: str) -> None:
        with entered(Context(name)):
            both.wait(10)
            names[name] = lpml.context().name

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("a/0", "b/0")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"a/0": "a/0", "b/0": "b/0"}


def test_waiting_says_whether_the_program_stops() -> None:
    with node(clock=VirtualClock(jump_when_waiting=1)) as context:
        assert context.wait(5.0) is False
        assert context.clock.time() == 5.0
        context.clock.stop()
        assert context.wait(5.0) is True
        assert context.should_stop


def test_a_node_asks_the_program_to_stop_with_a_reason() -> None:
    reasons: list[str] = []
    with node("evaluator/0", on_stop=reasons.append) as context:
        context.stop_program("97 % reached")
        context.stop_program()
    assert reasons == ["97 % reached", "evaluator/0 asked"]


def test_metrics_go_to_the_file_of_the_node(tmp_path: Path) -> None:
    with node("outer/worker/3", clock=VirtualClock(2.0), directory=tmp_path) as context:
        context.log({"loss": np.float32(0.5)}, step=10)
        context.log({"loss": 0.25, "accuracy": 1})
        assert context.latest_metrics == {"loss": 0.25, "accuracy": 1.0}
    first, second = rows(tmp_path / "metrics" / "outer-worker-3.jsonl")
    assert (first["step"], first["loss"]) == (10, 0.5)
    assert (second["step"], second["accuracy"]) == (11, 1.0)
    assert first["time"] == context.clock.wall_time()


def test_a_metric_that_is_no_number_is_refused_whole(tmp_path: Path) -> None:
    with node(directory=tmp_path) as context:
        with pytest.raises(TypeError):
            context.log({"good": 1.0, "bad": [1, 2]})  # type: ignore[dict-item]  # pyright: ignore
        assert context.latest_metrics == {}


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    with node("w/0", directory=tmp_path) as context:
        context.log({"loss": 1.0})
        assert len(rows(tmp_path / "metrics" / "w-0.jsonl")) == 1


def test_logging_goes_on_after_a_close(tmp_path: Path) -> None:
    with node("w/0", directory=tmp_path) as context:
        context.log({"loss": 1.0})
        context.close()
        context.log({"loss": 2.0})
    assert [row["loss"] for row in rows(tmp_path / "metrics" / "w-0.jsonl")] == [1.0, 2.0]


def test_a_loss_that_diverged_is_logged_all_the_same(tmp_path: Path) -> None:
    with node("w/0", directory=tmp_path) as context:
        context.log({"loss": float("nan")})
        assert list(context.latest_metrics) == ["loss"]
    assert len(rows(tmp_path / "metrics" / "w-0.jsonl")) == 1


def test_threads_of_a_node_log_whole_lines(tmp_path: Path) -> None:
    with node("w/0", directory=tmp_path) as context:

        def log() -> None:
            for step in range(50):
                context.log({"x" * 50: step}, step)

        threads = [threading.Thread(target=log) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(rows(tmp_path / "metrics" / "w-0.jsonl")) == 200


def test_progress_is_what_was_last_reported() -> None:
    with node() as context:
        assert context.latest_progress is None
        context.progress(3)
        assert context.latest_progress == (3, None)
        context.progress(4, 10)
        assert context.latest_progress == (4, 10)
