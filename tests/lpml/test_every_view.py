"""What is seen of a run on every launcher: logs, status, and from other processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import lpml
from lpml import wire
from lpml.launchers import rendezvous
from lpml.launchers.control import connect
from tests.launching import Launch
from tests.lpml.simple import Printer, Waiter, program_of
from tests.waiting import until


def test_what_a_node_prints_is_in_its_log_to_the_last_letter(start: Launch) -> None:
    before = (sys.stdout, sys.stderr)
    with start(program_of(lpml.Node(Printer), lpml.Node(Printer))) as run:
        run.client("node/0").shout("you")
        run.client("node/1").shout("hello")
    assert run.folder.log_file("node/0").read_text() == "built\nyou\ntrouble\nno end of line"
    assert run.folder.log_file("node/1").read_text() == "built\nhello\ntrouble\nno end of line"
    assert (sys.stdout, sys.stderr) == before


def test_the_terminal_shows_every_line_with_its_node(
    start: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(program_of(lpml.Node(Printer)), terminal=True) as run:
        run.client("node/0").shout("hello")
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        "node/0 | built",
        "node/0 | hello",
        "node/0 | trouble",
        "node/0 | no end of line",
    ]


class Surroundings:
    """Says what its context is."""

    def __init__(self) -> None:
        self._built_in = lpml.context().name

    def tell(self) -> tuple[str, str, str, int, str]:
        context = lpml.context()
        return (self._built_in, context.name, context.group, context.index, str(context.directory))

    def record(self) -> None:
        lpml.context().log({"loss": 0.5}, step=3)
        lpml.context().progress(2, 4)


def test_a_node_knows_who_and_where_it_is(start: Launch) -> None:
    program = lpml.Program("names")
    with program.group("outer"), program.group("inner"):
        program.add_node(lpml.Node(Surroundings))
        program.add_node(lpml.Node(Surroundings))
    with start(program) as run:
        name = "outer/inner/1"
        expected = (name, name, "outer/inner", 1, str(run.folder.path))
        assert run.client(name).tell() == expected


def test_the_status_shows_calls_metrics_and_progress(start: Launch) -> None:
    with start(program_of(lpml.Node(Surroundings))) as run:
        run.client("node/0").record()
        assert until(lambda: run.status().nodes[0].calls == 1)  # it is not waited for for long
        status = run.status()
        (node,) = status.nodes
        assert (status.state, status.program) == ("running", "tested")
        assert (node.state, node.calls, node.errors) == ("running", 1, 0)
        assert (dict(node.metrics), node.progress) == ({"loss": 0.5}, (2.0, 4.0))
        assert node.pid > 0
        assert node.peak_memory > 1 << 20
    (last,) = run.status().nodes
    assert (last.state, last.calls, dict(last.metrics)) == ("stopped", 1, {"loss": 0.5})
    written = json.loads(run.folder.status_json.read_text())
    assert written["state"] == "stopped"
    assert written["nodes"][0]["metrics"] == {"loss": 0.5}
    rows = [json.loads(line) for line in lines_of(run.folder.metrics_file("node/0"))]
    assert [(row["step"], row["loss"]) for row in rows] == [(3, 0.5)]
    assert json.loads(run.folder.program_json.read_text())["program"] == "tested"


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_other_processes_find_a_run_and_stop_it(start: Launch) -> None:
    run = start(program_of(lpml.Node(Waiter)))
    (info,) = [info for info in rendezvous.runs() if info.run == run.name]
    assert info.folder == str(run.folder.path)
    control = connect(info.control)
    assert control.status()["nodes"][0]["name"] == "node/0"
    assert "thread" in control.stack("node/0") or "File" in control.stack("node/0")
    control.stop("from elsewhere")
    outcome = run.wait(60.0)
    assert (outcome.state, outcome.reason) == ("stopped", "from elsewhere")
    assert run.name not in [info.run for info in rendezvous.runs()]
    wire.close(control)
