"""Resumption: a run goes on where its last checkpoint was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lpml
from lpml.record.checkpoints import latest_of
from tests.launching import Launch
from tests.lpml.stateful import Logger, Stateless, bank, check, one_node
from tests.waiting import until


def test_a_run_goes_on_where_its_last_checkpoint_was(start: Launch) -> None:
    with start(bank(), checkpoint_every=60.0) as run:
        assert until(lambda: run.client("account/1").total() > 20)
    first = latest_of(run.folder)
    moved = check(first)  # the last one was taken when the run stopped
    with start(bank(3), resume=run.folder.path, checkpoint_every=60.0) as again:
        assert again.folder.path == run.folder.path
        assert sum(again.client("account/1").parts().values()) >= 2 * moved
        assert until(lambda: again.client("account/1").total() > 2 * moved + 20)
        assert {node.restarts for node in again.status().nodes} == {0}
    last = latest_of(run.folder)
    assert check(last) > moved
    assert last.manifest.attempts["mover/0"] == 1
    assert last.manifest.seconds > first.manifest.seconds


def test_what_was_logged_after_the_cut_is_not_in_the_curve_twice(start: Launch) -> None:
    with start(one_node(Logger)) as run:
        run.client("node/0").count(3)
        run.checkpoint()
        run.client("node/0").count(5)  # no checkpoint knows of these two
    with start(one_node(Logger), resume=run.folder.path) as again:
        assert again.client("node/0").get() == 3
        again.client("node/0").count(6)
    rows = run.folder.metrics_file("node/0").read_text().splitlines()
    assert [json.loads(row)["count"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_what_cannot_be_resumed_is_refused(start: Launch, tmp_path: Path) -> None:
    with start(one_node(Logger)) as run:
        with pytest.raises(lpml.UsageError, match="still goes on"):
            start(one_node(Logger), resume=run.folder.path)
    with pytest.raises(lpml.LaunchError, match="has no checkpoint"):
        start(one_node(Logger), resume=run.folder.path)
    with start(one_node(Logger), checkpoint_every=60.0) as run:
        run.client("node/0").count(1)
    with pytest.raises(lpml.UsageError, match=r"has node/0 \(Logger\), .* has nothing"):
        start(one_node(Stateless), resume=run.folder.path)
    with pytest.raises(lpml.UsageError, match="no such run"):
        start(one_node(Logger), resume=tmp_path / "nowhere")
    (latest_of(run.folder).path / "node-0.json").write_text("{")
    run = start(one_node(Logger), resume=run.folder.path)
    with pytest.raises(lpml.NodeError, match="restoring it from its checkpoint raised"):
        run.wait(60.0)
