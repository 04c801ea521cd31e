"""What people see of a run: tables, lines, and the words in them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from lpml.cli import tables, views, words
from lpml.cli.programs import Prebuilt
from lpml.launchers import NodeStatus, RunStatus
from lpml.launchers.names import NodeState


def node(
    name: str,
    state: NodeState = "running",
    calls: int = 0,
    metrics: Mapping[str, float] | None = None,
    progress: tuple[float, float | None] | None = None,
    detail: str = "",
) -> NodeStatus:
    group, _, index = name.rpartition("/")
    made = NodeStatus(name, group, int(index), "Service", "running", calls=calls, detail=detail)
    return dataclasses.replace(made, state=state, metrics=metrics or {}, progress=progress)


def status(*nodes: NodeStatus, seconds: float = 10.0, state: str = "running") -> RunStatus:
    return RunStatus("digits-1", "digits", "local_mp", state, "", seconds, "/runs/digits-1", nodes)


def text_of(view: object, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    return str(console.file.getvalue())  # type: ignore[attr-defined]  # it is a StringIO


def seen(*statuses: RunStatus) -> views.Speeds:
    speeds = views.Speeds()
    for one in statuses:
        speeds.see(one)
    return speeds


def test_a_status_is_json_whatever_was_logged() -> None:
    metrics = {"loss": float("nan"), "return": float("-inf"), "accuracy": 0.5}
    text = json.dumps(status(node("a/0", metrics=metrics)).to_json(), allow_nan=False)
    (written,) = json.loads(text)["nodes"]
    assert written["metrics"] == {"loss": "NaN", "return": "-Infinity", "accuracy": 0.5}


def test_calls_per_second_are_those_of_late() -> None:
    speeds = seen(
        *(status(node("a/0", calls=n), seconds=s) for s, n in [(10, 1000), (19, 1000), (20, 1100)])
    )
    assert speeds.calls("a/0") == pytest.approx(10.0)
    assert speeds.calls("b/0") is None


def test_a_node_that_starts_again_has_no_negative_speed() -> None:
    speeds = seen(
        *(status(node("a/0", calls=n), seconds=s) for s, n in [(10, 1000), (11, 5), (12, 25)])
    )
    assert speeds.calls("a/0") == pytest.approx(20.0)


def test_the_time_that_is_left_follows_the_speed_so_far() -> None:
    first = status(node("a/0", progress=(100, 1000)), seconds=10)
    second = status(node("a/0", progress=(300, 1000)), seconds=20)
    assert seen(first).eta(first.nodes[0]) is None
    assert seen(first, second).eta(second.nodes[0]) == pytest.approx(35.0)
    assert views.progress_text((300, 1000), 35.0) == "30%, 35.0 s left"
    assert views.progress_text((300, None), None) == "300"
    assert views.progress_text((1000, 1000), 0.0, bar=True).startswith("━" * 16)


def test_nodes_that_are_too_many_are_folded_by_group() -> None:
    workers = [
        node(f"worker/{i}", calls=100, metrics={"loss": float(i)}, progress=(i, 10))
        for i in range(50)
    ]
    workers[7] = node("worker/7", state="failed", detail="it fell")
    one = status(node("server/0"), *workers)
    speeds = seen(one)
    assert len(views.rows(one, speeds)) == 51
    server, folded = views.rows(one, speeds, limit=10)
    assert (server.name, folded.name) == ("server/0", "worker × 50")
    assert folded.state == "49 running 1 failed"
    assert folded.calls == pytest.approx(49 * 100 / 10)
    assert folded.progress == (sum(range(50)) - 7, 490)
    assert folded.detail == "it fell"


def test_small_groups_are_not_folded_where_large_ones_suffice() -> None:
    one = status(node("a/0"), node("a/1"), *(node(f"b/{i}") for i in range(9)))
    assert [row.name for row in views.rows(one, seen(one), limit=5)] == ["a/0", "a/1", "b × 9"]


def test_the_picture_shows_node_state_speed_metrics_and_progress() -> None:
    one = status(
        node("learner/0", calls=120, metrics={"loss": 0.123456}, progress=(5, 10)),
        node("actor/0", state="starting"),
    )
    text = text_of(views.run_view(one, seen(one)))
    for part in (
        "digits on local_mp",
        "10.0 s",
        "learner/0",
        "12",
        "50%",
        "loss 0.1235",
        "starting",
    ):
        assert part in text


def test_the_picture_fits_the_height_of_the_terminal() -> None:
    one = status(*(node(f"group{i}/0") for i in range(60)))
    text = text_of(views.run_view(one, seen(one), height=20))
    assert len(text.splitlines()) <= 19
    assert "and 45 rows more" in text


def test_names_of_nodes_and_metrics_are_no_markup() -> None:
    one = status(node("worker/0", metrics={"[red]loss[/": 1.0}))
    assert "[red]loss[/ 1" in text_of(views.run_view(one, seen(one)))


def test_a_line_tells_states_speed_progress_and_metrics() -> None:
    one = status(
        node("learner/0", calls=50, metrics={"loss": 2.0}, progress=(1, 4)), node("actor/0")
    )
    assert views.line(one, seen(one)) == (
        "lpml: digits 10.0 s: 2 running; 5 calls/s; learner/0: 25%  loss 2"
    )


def test_the_last_line_says_how_it_ended_and_where_it_is(tmp_path: Path) -> None:
    ended = dataclasses.replace(status(state="finished"), reason="learner/0 asked")
    assert views.ending(ended) == "lpml: digits finished after 10.0 s (learner/0 asked)"
    there = dataclasses.replace(ended, reason="", folder=str(tmp_path))
    assert views.ending(there) == f"lpml: digits finished after 10.0 s; run folder {tmp_path}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.0123456, "0.01235"),
        (12345.678, "12346"),
        (-2.5, "-2.5"),
        (1e12, "1e+12"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert words.number(value) == text


def test_durations_and_sizes_are_short() -> None:
    assert [words.duration(s) for s in (8.34, 125, 3609)] == ["8.3 s", "2:05", "1:00:09"]
    assert [words.memory(m) for m in (0, 712 << 20, int(3.1 * 2**30))] == ["", "712 MiB", "3.1 GiB"]


def test_many_metrics_are_cut() -> None:
    assert views.metrics_text({f"m{i}": 1.0 for i in range(9)}, 2) == "m0 1  m1 1  (+7)"


def test_tables_of_runs_and_programs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_runs([])
    tables.print_runs([status(node("a/0", calls=7), node("a/1", state="starting"))])
    tables.print_programs([Prebuilt("digits", "m:f", "lpml", "Trains.")])
    text = capsys.readouterr().out
    for part in ("no runs", "digits-1", "1 running, 1 starting", "digits", "Trains."):
        assert part in text
