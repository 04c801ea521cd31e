"""A stateful node that fails sets its run back to the last checkpoint."""

from __future__ import annotations

import pytest

import lpml
from lpml.record.checkpoints import Checkpoints, latest_of
from tests.launching import Launch, fail
from tests.lpml.stateful import FailsWhenTold, Logger, bank, check, one_node
from tests.waiting import until


class Fragile(FailsWhenTold, Logger):
    """Has state, and fails when it is told to."""


def test_a_stateful_node_that_fails_sets_the_run_back_to_its_checkpoint(start: Launch) -> None:
    policy = lpml.Restart.on_failure(3, backoff=0.02)
    with start(one_node(Fragile, policy)) as run:
        node = run.client("node/0")
        node.count(3)
        run.checkpoint()
        node.count(5)
        fail(node)
        with lpml.deadline(60.0):
            assert until(lambda: run.status().nodes[0].restarts == 1)
            assert node.get() == 3
    assert "set back to its last checkpoint" in run.folder.log_file("node/0").read_text()


def test_all_nodes_are_set_back_together(start: Launch) -> None:
    program = bank(2)
    with program.group("fragile", restart=lpml.Restart.on_failure(3, backoff=0.02)):
        program.add_node(lpml.Node(Fragile))
    with start(program, checkpoint_every=0.2, stop_timeout=30.0) as run:
        checkpoints = Checkpoints(run.folder)
        assert until(lambda: len(checkpoints.all()) == 2)
        fail(run.client("fragile/0"))
        assert until(lambda: {node.restarts for node in run.status().nodes} == {1})
        seen = checkpoints.all()[-1].manifest.number
        assert until(lambda: checkpoints.all()[-1].manifest.number > seen)
        run.stop("enough")
    assert run.wait().reason == "enough"
    check(latest_of(run.folder))


def test_a_stateful_node_without_a_checkpoint_fails_the_run(start: Launch) -> None:
    run = start(one_node(Fragile, lpml.Restart.on_failure(3, backoff=0.02)))
    fail(run.client("node/0"))
    with pytest.raises(lpml.NodeError, match=r"told to; it has state, .*--checkpoint-every"):
        run.wait(60.0)
