"""What a benchmark says while it runs, at its end and in its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.board import Board, arguments
from benchmarks.common import Measure


def lines() -> list[Measure]:
    return [
        Measure("echo, p50", "s", target=0.7),
        Measure("clients", "/s", lower_is_better=False),
    ]


def run(*words: str, repetitions: int = 2, stop: type[BaseException] | None = None) -> list[int]:
    """A benchmark of two lines; the repetitions that it made."""
    options = arguments("What it is.", repetitions).parse_args(words)
    made, measures = [], lines()
    with Board("rpc", measures, options) as board:
        for repetition in board.repetitions():
            made.append(repetition)
            for measure in measures:
                if board.wants(measure):
                    measure.add("lpml", 1e-4 * (repetition + 1))
                    measure.add("courier", 2e-4 * (repetition + 1))
                    board.tell(measure)
            if stop is not None:
                raise stop
    return made


def test_a_line_is_said_when_its_figure_is_there_with_what_is_known_so_far(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--only", "echo") == [0, 1]
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "rpc 1/2 | echo, p50: lpml 100 µs, courier 200 µs (0.50 x), target <= 0.7 x courier"
    )
    assert second.startswith("rpc 2/2 | echo, p50: lpml 150 µs")


def test_the_table_at_the_end_has_the_lines_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    run("--only", "echo", "--repetitions", "1")
    out = capsys.readouterr().out
    assert "echo, p50" in out
    assert "clients" not in out
    assert "≤ 0.7 × courier" in out


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    run("--json")
    data = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in data["measures"]] == ["echo, p50", "clients"]
    assert data["measures"][0]["ratio"]["courier"]["median"] == 0.5


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt])
def test_the_file_has_what_was_measured_even_if_it_was_ended(
    tmp_path: Path, stop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table, data = tmp_path / "table.md", tmp_path / "data.json"
    for file in (table, data):
        if stop is None:
            run("--output", str(file))
        else:
            with pytest.raises(SystemExit, match="130"):
                run("--output", str(file), stop=stop)
    assert "| echo, p50 | " in table.read_text()
    count = 1 if stop else 2
    values = json.loads(data.read_text())["measures"][0]["values"]
    assert len(values["lpml"]) == count
    assert "echo, p50" in capsys.readouterr().out


def test_time_ends_the_repetitions_after_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--minutes", "0", repetitions=5) == [0]
    assert "time for 1 of 5 repetitions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "no line has nothing in its name"),
        (["--output", "x.txt"], "give a file that ends in .json or .md"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        run(*words)


def test_the_lines_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--list")
    assert capsys.readouterr().out == "echo, p50\nclients\n"
