"""Every ready program, started as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lpml
from lpml.programs import hello
from lpml.programs.supervised import parameter_server
from lpml.testing import node, running

LAUNCHERS = ["test", "local_mp"]


def test_a_guest_is_greeted_by_a_plain_greeter(capsys: pytest.CaptureFixture[str]) -> None:
    with node("guest/0") as context:
        hello.Guest(hello.Greeter("Hi"), "Ada", times=2).run()
    assert capsys.readouterr().out.splitlines() == [
        "Hi, Ada! (greeting number 1)",
        "Hi, Ada! (greeting number 2)",
    ]
    assert context.latest_progress == (2, 2)


@pytest.mark.parametrize("launch", LAUNCHERS)
def test_hello_greets_and_ends(launch: str, runs: Path) -> None:
    with running(hello.program(greeting="Hi", guests=2, times=3), launch, directory=runs) as run:
        assert run.wait(30).state == "finished"
        logs = sorted((run.folder.path / "logs").glob("guest-*.log"))
        assert [len(log.read_text().splitlines()) for log in logs] == [3, 3]


def train(launch: str, runs: Path, **flags: Any) -> dict[str, float]:
    """The evaluator's last row of metrics."""
    with running(parameter_server.program(**flags), launch, directory=runs) as run:
        outcome = run.wait(90)
    assert outcome.state == "finished"
    assert outcome.reason.startswith("test accuracy ")
    lines = (run.folder.path / "metrics" / "evaluator-0.jsonl").read_text().splitlines()
    row: dict[str, float] = json.loads(lines[-1])
    return row


def test_digits_train_on_threads(runs: Path) -> None:
    row = train("test", runs, updates=80)
    assert row["step"] == 80
    assert row["accuracy"] >= 0.94


@pytest.mark.parametrize("mode", ["synchronous", "bounded-staleness"])
def test_digits_train_on_sharded_servers(mode: str, runs: Path) -> None:
    row = train("test", runs, updates=80, num_servers=2, mode=mode)
    assert row["accuracy"] >= 0.94


def test_digits_end_at_their_target(runs: Path) -> None:
    row = train("test", runs, updates=10_000, target=0.9)
    assert row["accuracy"] >= 0.9
    assert row["step"] < 2_000


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["asynchronous", "synchronous", "bounded-staleness"])
@pytest.mark.parametrize("seed", range(3))
def test_digits_reach_97_percent_on_processes(mode: str, seed: int, runs: Path) -> None:
    row = train("local_mp", runs, mode=mode, seed=seed)
    assert row["step"] == 600
    assert row["accuracy"] >= 0.97


@pytest.mark.slow
def test_a_slow_worker_delays_the_synchronous_but_not_with_a_backup(runs: Path) -> None:
    flags = {"mode": "synchronous", "num_workers": 3, "updates": 60, "slow_worker": 0.2}
    alone = train("local_mp", runs, **flags)
    backed = train("local_mp", runs, backup_workers=1, **flags)
    assert alone["updates_per_second"] <= 5
    assert backed["updates_per_second"] >= 3 * alone["updates_per_second"]


def test_the_flags_of_a_program_are_checked_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="backup_workers=2 of num_workers=2"):
        parameter_server.program(mode="synchronous", backup_workers=2)
    with pytest.raises(ValueError, match="num_shards=7"):
        parameter_server.program(num_servers=7)
    with pytest.raises(lpml.UsageError, match="mode=bounded-staleness"):
        parameter_server.program(mode="bounded-staleness", backup_workers=1)
