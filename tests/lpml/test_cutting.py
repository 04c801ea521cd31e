"""Cuts of a run: when they are taken, and that the states in one agree."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import lpml
from lpml.record.checkpoints import Checkpoints, latest_of
from tests.launching import Launch
from tests.lpml.stateful import Account, Logger, Stateless, bank, check, one_node
from tests.waiting import until


def test_in_every_cut_the_states_of_all_nodes_agree(start: Launch) -> None:
    with start(bank()) as run:
        moved = []
        for _ in range(8):
            run.checkpoint(30.0)
            moved.append(check(latest_of(run.folder)))
        assert moved == sorted(moved)
        assert moved[-1] > moved[0]  # they went on in between
        names = [cut.path.name for cut in Checkpoints(run.folder).all()]
    assert names == ["000007", "000008"]  # the last two are kept


def test_checkpoints_are_taken_on_a_schedule(start: Launch) -> None:
    with start(bank(1), checkpoint_every=0.05) as run:
        checkpoints = Checkpoints(run.folder)
        assert until(lambda: len(checkpoints.all()) == 2)
        run.stop("enough")
    assert run.wait().reason == "enough"


def test_a_cut_that_is_asked_for_has_what_was_acknowledged_before_even_amid_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpml.record import trees

    writing, may_write, save = threading.Event(), threading.Event(), trees.save

    def slowly(stem: Path, tree: Any) -> int:
        writing.set()
        may_write.wait(60.0)
        return save(stem, tree)

    monkeypatch.setattr(trees, "save", slowly)
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False}
    with lpml.launch(one_node(Logger), "local_mt", checkpoint_every=60.0, **options) as run:
        assert writing.wait(60.0)  # the first cut is copied, and has no count
        run.client("node/0").count(5)
        run.request_stop("enough")
        run.status()  # the request has been heard
        may_write.set()
        assert run.wait(60.0).reason == "enough"
    assert latest_of(run.folder).load("node/0") == 5


class Unsaveable(Logger):
    """Returns what cannot be saved."""

    def save(self) -> Any:
        return {"lock": threading.Lock()}


def test_a_state_that_cannot_be_saved_is_named_and_the_run_goes_on(start: Launch) -> None:
    with start(one_node(Unsaveable)) as run:
        with pytest.raises(lpml.LaunchError, match=r"node/0: UsageError: state\['lock'\] is a"):
            run.checkpoint()
        assert run.client("node/0").get() == 0
        assert list((run.folder.path / "checkpoints").iterdir()) == []


class Stuck(Logger):
    """Its loop never comes to a safe point."""

    _looping = False

    @lpml.concurrent
    def looping(self) -> bool:
        return self._looping

    def run(self) -> None:
        self._looping = True
        while not lpml.context().clock.stopping:
            pass


def test_a_loop_without_a_safe_point_is_named_and_goes_on(
    start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpml.launchers import cuts

    monkeypatch.setattr(cuts, "PATIENCE", {**cuts.PATIENCE, "hold": 0.2})
    monkeypatch.setattr(cuts, "_SLACK", 60.0)
    with start(one_node(Stuck)) as run:
        assert until(lambda: bool(run.client("node/0").looping()))
        with pytest.raises(lpml.LaunchError, match="node/0: its loop came to no safe point"):
            run.checkpoint()
        assert run.client("node/0").get() == 0


def test_a_program_without_state_has_nothing_to_save(start: Launch) -> None:
    with start(one_node(Stateless)) as run:
        with pytest.raises(lpml.LaunchError, match=r"no node .* has both save\(\) and restore\(\)"):
            run.checkpoint()
        run.request_stop("enough", save=True)
        assert run.wait(60.0).reason == "enough"


class Witness:
    """Its state is whether its loop had ended when it was saved."""

    def __init__(self) -> None:
        self._ended = False

    def run(self) -> None:
        while not lpml.context().wait(60.0):
            pass
        self._ended = True

    def save(self) -> bool:
        return self._ended

    def restore(self, state: bool) -> None:
        del state


class Ender:
    """Ends the program after a while."""

    def run(self) -> None:
        lpml.context().wait(0.2)
        lpml.context().stop_program("enough")


def test_a_program_that_a_node_ends_is_saved_while_it_still_goes_on(start: Launch) -> None:
    program = lpml.Program("ended")
    program.add_node(lpml.Node(Witness), label="witness")
    program.add_node(lpml.Node(Ender), label="ender")
    run = start(program, checkpoint_every=60.0)
    outcome = run.wait(60.0)
    assert (outcome.state, outcome.reason) == ("finished", "enough")
    last = latest_of(run.folder)
    assert last.manifest.number == 2
    assert last.load("witness/0") is False


def test_who_ended_the_program_is_said_even_if_all_have_returned_meanwhile(start: Launch) -> None:
    program = lpml.Program("ended")
    program.add_node(lpml.Node(Account), label="account")
    program.add_node(lpml.Node(Ender), label="ender")  # returns while the cut is taken
    outcome = start(program, checkpoint_every=60.0).wait(60.0)
    assert (outcome.state, outcome.reason) == ("finished", "enough")
