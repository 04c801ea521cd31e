"""The run folder, the metrics in it, and what is made of them."""

from __future__ import annotations

import importlib
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from lpml.errors import LaunchError, UsageError
from lpml.record.folder import RunFolder, runs_directory
from lpml.record.metrics import MetricsFollower, MetricsWriter
from lpml.record.plot import plot, read_curves
from lpml.record.tensorboard import Exporter


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create("digits", tmp_path)
    nodes = [{"name": "worker/0"}, {"name": "outer-a/inner/0"}]
    made.write_json(made.program_json, {"program": "digits", "nodes": nodes})
    return made


@pytest.fixture(scope="module")
def fonts() -> None:
    """Draws once: matplotlib keeps the font files that it has read open."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle("x")
    figure.savefig(io.BytesIO())


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    made = {RunFolder.create("p", tmp_path).path for _ in range(3)}
    assert len(made) == 3
    assert all((path / "logs").is_dir() for path in made)


def test_runs_go_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LPML_RUNS", str(tmp_path / "there"))
    assert RunFolder.create("p").path.parent == tmp_path / "there"
    assert runs_directory(tmp_path / "here") == tmp_path / "here"


def test_a_program_with_a_strange_name_gets_a_plain_folder(tmp_path: Path) -> None:
    assert RunFolder.create("a b/../c", tmp_path).name.startswith("a-b-..-c-")


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r"file/p-.* cannot be written: .*--directory"):
        RunFolder.create("p", tmp_path / "file")


def test_a_run_is_found_by_path_name_program_and_latest(tmp_path: Path) -> None:
    made = [RunFolder.create(name, tmp_path) for name in ("a", "b", "b")]
    assert [run.path for run in RunFolder.all(tmp_path)] == [run.path for run in made]
    assert RunFolder.find(str(made[0].path)).path == made[0].path
    assert RunFolder.find(made[0].name, tmp_path).path == made[0].path
    assert RunFolder.find("b", tmp_path).path == made[2].path
    assert RunFolder.find("latest", tmp_path).path == made[2].path


def test_a_run_that_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds none"):
        RunFolder.find("latest", tmp_path)
    made = RunFolder.create("digits", tmp_path)
    with pytest.raises(UsageError, match=f"did you mean '{made.name}'"):
        RunFolder.find(made.name.replace("digits", "digit"), tmp_path)


def test_json_is_replaced_as_a_whole(folder: RunFolder) -> None:
    folder.write_json(folder.status_json, {"state": "running"})
    folder.write_json(folder.status_json, {"state": "finished"})
    assert folder.read_json(folder.status_json) == {"state": "finished"}
    assert sorted(path.name for path in folder.path.iterdir() if path.is_file()) == [
        "program.json",
        "status.json",
    ]


def test_a_file_that_is_no_json_reads_as_nothing(folder: RunFolder) -> None:
    folder.status_json.write_text('{"state": ')
    assert folder.read_json(folder.status_json) == {}


def test_json_in_a_folder_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    gone = RunFolder(tmp_path / "gone")
    with pytest.raises(LaunchError, match=r"gone/status\.json cannot be written"):
        gone.write_json(gone.status_json, {})


def test_metrics_are_read_once_in_order_under_the_name_of_their_node(folder: RunFolder) -> None:
    follower = MetricsFollower(folder)
    assert follower.poll() == []
    writers = {
        node: MetricsWriter(folder.metrics_file(node)) for node in ("worker/0", "outer-a/inner/0")
    }
    for step in range(2):
        for writer in writers.values():
            writer.write({"loss": 0.5 + step}, None, 12.0)
    rows = follower.poll()
    assert follower.poll() == []
    assert [row.metrics["loss"] for node, row in rows if node == "worker/0"] == [0.5, 1.5]
    assert [row.step for node, row in rows if node == "outer-a/inner/0"] == [1, 2]
    for writer in writers.values():
        writer.close()


def test_a_line_that_is_being_written_waits_for_its_end(folder: RunFolder) -> None:
    follower = MetricsFollower(folder)
    with folder.metrics_file("worker/0").open("a") as file:
        file.write('{"time": 1, "step": 1, "loss"')
        file.flush()
        assert follower.poll() == []
        file.write(": 2}\nno row\n[]\n")
        file.flush()
        ((node, row),) = follower.poll()
    assert (node, row.metrics) == ("worker/0", {"loss": 2.0})


def test_a_metric_cannot_take_the_name_of_the_step(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="another name"):
        writer.write({"step": 1.0}, None, 0.0)
    writer.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_what_is_not_finite_is_valid_json_and_is_read_back(folder: RunFolder) -> None:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    writer = MetricsWriter(folder.metrics_file("worker/0"))
    values = {"loss": float("nan"), "up": float("inf"), "down": -float("inf"), "fine": 0.5}
    writer.write(values, 1, 100.0)
    writer.close()
    (line,) = folder.metrics_file("worker/0").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["loss"] == "NaN"
    ((_, row),) = MetricsFollower(folder).poll()
    assert math.isnan(row.metrics["loss"])
    assert {**row.metrics, "loss": 0} == {**values, "loss": 0}


def test_a_full_disk_is_told_with_file_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").symlink_to("/dev/full")
    writer = MetricsWriter(tmp_path / "m.jsonl")
    with pytest.raises(
        LaunchError, match=r"m\.jsonl cannot be written: No space left.*--directory"
    ):
        writer.write({"loss": 1.0}, 1, 0.0)
    writer.close()


def _records(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found


def test_metrics_become_tensorboard_events_of_their_node(folder: RunFolder) -> None:
    Event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
    exporter = Exporter(folder)
    writer = MetricsWriter(folder.metrics_file("worker/0"))
    writer.write({"loss": 0.25, "accuracy": math.nan}, 7, 12.5)
    assert exporter.poll() == 1
    assert exporter.poll() == 0
    writer.write({"loss": 0.125}, 8, 13.5)
    writer.close()
    exporter.close()
    (file,) = folder.tensorboard.glob("worker/0/events.out.tfevents.*")
    events = [Event.FromString(record) for record in _records(file)]
    scalars = [
        (e.wall_time, e.step, v.tag, v.simple_value) for e in events for v in e.summary.value
    ]
    assert scalars[0] == (12.5, 7, "loss", 0.25)
    assert scalars[-1] == (13.5, 8, "loss", 0.125)


@pytest.mark.usefixtures("fonts")
def test_curves_are_drawn_to_a_png(folder: RunFolder) -> None:
    writer = MetricsWriter(folder.metrics_file("worker/0"))
    for step in range(5):
        writer.write({"loss": 1 / (1 + step), "a": 1.0, "b": 2.0, "c": 3.0}, step, 0.0)
    writer.close()
    assert read_curves(folder)["loss"]["worker/0"][0] == [0, 1, 2, 3, 4]
    assert plot(folder).read_bytes().startswith(b"\x89PNG")
    text = plot(folder, folder.path / "all.svg").read_text()
    assert text.count('id="matplotlib.axis_') == 2 * 4  # two axes a panel, none where it is empty
    with pytest.raises(UsageError, match=r"lost: no such metric.*did you mean 'loss'"):
        plot(folder, metrics=["lost"])
    with pytest.raises(UsageError, match=r"curves\.nonsense"):
        plot(folder, folder.path / "curves.nonsense")
    with pytest.raises(LaunchError, match=r"there is no folder .*/none; make it"):
        plot(folder, folder.path / "none" / "curves.png")


def test_a_run_without_metrics_is_not_drawn(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match="no node called"):
        plot(folder)


def test_every_line_of_metrics_is_json(folder: RunFolder) -> None:
    writer = MetricsWriter(folder.metrics_file("worker/0"))
    writer.write({"loss": 2.0}, None, 1.0000004)
    writer.close()
    assert json.loads(folder.metrics_file("worker/0").read_text()) == {
        "time": 1.0,
        "step": 1,
        "loss": 2.0,
    }
