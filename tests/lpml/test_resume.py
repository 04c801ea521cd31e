"""Checkpoints and resumption: a cut loses nothing that was acknowledged and repeats nothing."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lpml
from lpml.launchers import Run
from lpml.record.checkpoints import Checkpoint, Checkpoints, latest_of
from lpml.record.folder import RunFolder
from tests.tables import LAUNCHERS
from tests.waiting import until

Launch = Callable[..., Run]
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(params=LAUNCHERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Launch:
    """Launches a program on the launcher of the row; the run folder is kept for the test."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 30.0}
    return lambda program, **changes: lpml.launch(program, request.param, **{**options, **changes})


class Account:
    """A sum, and who has put how much in."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}

    def add(self, amount: int) -> int:
        self._add(lpml.context().name, amount)
        return self._parts[lpml.context().name]

    def add_for(self, who: str, amount: int) -> int:
        self._add(who, amount)
        return self._parts[who]

    @lpml.idempotent
    def total(self) -> int:
        return sum(self._parts.values())

    @lpml.idempotent
    def parts(self) -> dict[str, int]:
        return dict(self._parts)

    def save(self) -> dict[str, int]:
        return self._parts

    def restore(self, state: dict[str, int]) -> None:
        self._parts = state

    def _add(self, who: str, amount: int) -> None:
        self._parts[who] = self._parts.get(who, 0) + amount


class Through:
    """Passes on to an account what it was given, within the call: a stateful caller in between."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._passed = 0

    def pass_on(self, who: str, amount: int) -> None:
        self._passed += amount
        self._account.add_for(f"through {who}", amount)

    @lpml.idempotent
    def passed(self) -> int:
        return self._passed

    def save(self) -> int:
        return self._passed

    def restore(self, state: int) -> None:
        self._passed = state


class Mover:
    """Takes from one account and gives to another, again and again. Has no state."""

    def __init__(self, giver: Account, taker: Account, through: Through) -> None:
        self._giver, self._taker, self._through = giver, taker, through

    def run(self) -> None:
        context = lpml.context()
        while not context.should_stop:
            self._giver.add_for(context.name, -1)
            self._taker.add_for(context.name, 1)
            self._through.pass_on(context.name, 1)


class Saver:
    """Counts how often an account has taken something of its. Has state."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._saved = 0

    def run(self) -> None:
        context = lpml.context()
        while not context.wait(0.0):
            if self._account.add_for("saver", 1) != self._saved + 1:
                raise AssertionError("an update was lost, or made twice")
            self._saved += 1

    def save(self) -> int:
        return self._saved

    def restore(self, state: int) -> None:
        self._saved = state


def bank(movers: int = 2, **policies: lpml.Restart) -> lpml.Program:
    program = lpml.Program("bank")
    with program.group("account", restart=policies.get("account")):
        giver, taker = (program.add_node(lpml.Node(Account)) for _ in range(2))
        through = program.add_node(lpml.Node(Through, taker), label="through")
        program.add_node(lpml.Node(Saver, giver), label="saver")
    with program.group("mover", restart=policies.get("mover")):
        for _ in range(movers):
            program.add_node(lpml.Node(Mover, giver, taker, through))
    return program


def check(cut: Checkpoint) -> int:
    """That the states of a cut agree; returns how often something was moved."""
    giver, taker = cut.load("account/0"), cut.load("account/1")
    saved = giver.pop("saver", 0)
    assert cut.load("saver/0") == saved
    through = {name: taker.pop(name) for name in list(taker) if name.startswith("through")}
    assert {name: -amount for name, amount in giver.items()} == taker
    assert {f"through {name}": amount for name, amount in taker.items()} == through
    assert cut.load("through/0") == sum(through.values())
    return sum(taker.values())


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


def test_checkpoints_are_taken_on_a_schedule(start: Launch) -> None:
    with start(bank(1), checkpoint_every=0.05) as run:
        checkpoints = Checkpoints(run.folder)
        assert until(lambda: len(checkpoints.all()) == 2)
        run.stop("enough")
    assert run.wait().reason == "enough"


class Logger:
    """Logs a row for each count; has state."""

    def __init__(self) -> None:
        self._count = 0

    def count(self, upto: int) -> None:
        while self._count < upto:
            self._count += 1
            lpml.context().log({"count": self._count}, step=self._count)

    @lpml.idempotent
    def get(self) -> int:
        return self._count

    def save(self) -> int:
        return self._count

    def restore(self, state: int) -> None:
        self._count = state


def one_node(service: type, restart: lpml.Restart | None = None) -> lpml.Program:
    program = lpml.Program("one")
    with program.group("node", restart=restart):
        program.add_node(lpml.Node(service))
    return program


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
        assert writing.wait(30.0)  # the first cut is copied, and has no count
        run.client("node/0").count(5)
        run.request_stop("enough")
        run.status()  # the request has been heard
        may_write.set()
        assert run.wait(30.0).reason == "enough"
    assert latest_of(run.folder).load("node/0") == 5


class Fragile(Logger):
    """Fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = lpml.context().clock.condition()
        self._failing = False

    @lpml.concurrent
    def fail(self) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()

    def run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failing)
        raise ValueError("told to")


def test_a_stateful_node_that_fails_sets_the_run_back_to_its_checkpoint(start: Launch) -> None:
    policy = lpml.Restart.on_failure(3, backoff=0.02)
    with start(one_node(Fragile, policy)) as run:
        node = run.client("node/0")
        node.count(3)
        run.checkpoint()
        node.count(5)
        node.fail()
        with lpml.deadline(20.0):
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
        run.client("fragile/0").fail()
        assert until(lambda: {node.restarts for node in run.status().nodes} == {1})
        seen = checkpoints.all()[-1].manifest.number
        assert until(lambda: checkpoints.all()[-1].manifest.number > seen)
        run.stop("enough")
    assert run.wait().reason == "enough"
    check(latest_of(run.folder))


def test_a_stateful_node_without_a_checkpoint_fails_the_run(start: Launch) -> None:
    run = start(one_node(Fragile, lpml.Restart.on_failure(3, backoff=0.02)))
    run.client("node/0").fail()
    with pytest.raises(lpml.NodeError, match=r"told to; it has state, .*--checkpoint-every"):
        run.wait(30.0)


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
        assert run.wait(30.0).reason == "enough"


class Stateless:
    """Serves nothing."""

    def nothing(self) -> None:
        """Nothing."""


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
        run.wait(30.0)


# Whole processes: killed, preempted, and resumed by the command line.

SYNCHRONOUS = '''
import hashlib, os
import lpml

class Server:
    """Adds up the gradients of two workers, step by step; refuses one that is lost or repeated."""

    def __init__(self, steps: int) -> None:
        self._changed = lpml.context().clock.condition()
        self._steps, self._step, self._params = steps, 0, 1.0
        self._held, self._digest = {}, ""

    @lpml.concurrent
    def pull(self) -> tuple:
        with self._changed:
            self._end_if_done()  # the cut may be of the last step, taken before the stop
            return self._step, self._params

    def _end_if_done(self) -> None:
        if self._step == self._steps:
            print("digest", self._digest, flush=True)
            lpml.context().stop_program("done")

    @lpml.concurrent
    def exchange(self, worker: int, step: int, gradient: float) -> tuple:
        with self._changed:
            self._changed.wait_for(lambda: self._step < self._steps)  # else until the end
            if step != self._step or worker in self._held:
                raise AssertionError(f"worker {worker}: step {step} at step {self._step}")
            self._held[worker] = gradient
            if len(self._held) == 2:
                self._params += 0.01 * (self._held[0] + self._held[1])
                text = f"{self._digest}{self._params!r}"
                self._digest = hashlib.sha256(text.encode()).hexdigest()
                self._held, self._step = {}, step + 1
                lpml.context().log({"params": self._params}, step=self._step)
                self._changed.notify_all()
                self._end_if_done()
            self._changed.wait_for(lambda: self._step > step)
            return self._step, self._params

    def save(self):
        with self._changed:
            return {"step": self._step, "params": self._params, "digest": self._digest}

    def restore(self, state) -> None:
        self._step, self._params = state["step"], state["params"]
        self._digest = state["digest"]

class Worker:
    """Its gradients come from a generator that is part of its state."""

    def __init__(self, server: Server, index: int) -> None:
        import numpy
        self._server, self._index = server, index
        self._rng = numpy.random.default_rng(index)
        self._state = self._rng.bit_generator.state

    def run(self) -> None:
        with lpml.deadline(None):
            step, params = self._server.pull()
            while not lpml.context().wait(0.002):
                gradient = params * float(self._rng.standard_normal())
                step, params = self._server.exchange(self._index, step, gradient)
                self._state = self._rng.bit_generator.state  # what was answered counts

    def save(self):
        return self._state

    def restore(self, state) -> None:
        self._rng.bit_generator.state = self._state = state

def program(steps: int = 300) -> lpml.Program:
    p = lpml.Program("sync")
    server = p.add_node(lpml.Node(Server, steps))
    for index in range(2):
        p.add_node(lpml.Node(Worker, server, index))
    return p
'''


def lpml_process(*words: str, runs: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "LPML_RUNS": str(runs), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "lpml", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=runs,
        start_new_session=True,
    )


def digest_of(folder: RunFolder) -> str:
    lines = folder.log_file("server/0").read_text().splitlines()
    return next(line for line in lines if line.startswith("digest"))


def curve_of(folder: RunFolder) -> list[tuple[int, float]]:
    rows = map(json.loads, folder.metrics_file("server/0").read_text().splitlines())
    return [(row["step"], row["params"]) for row in rows]


def killed_and_resumed(
    runs: Path, steps: int, kills: int, seed: int, launcher: list[str]
) -> RunFolder:
    """A run whose launcher is killed so often, at random times, and that is resumed each time."""
    dice, pause = random.Random(seed), threading.Event()
    words = ["run", "program.py", "--plain", "--checkpoint-every=0.1", f"--steps={steps}"]
    words += launcher
    process = lpml_process(*words, runs=runs)
    try:
        assert until(lambda: bool(RunFolder.all(runs)))
        (folder,) = RunFolder.all(runs)
        for _ in range(kills):
            assert until(functools.partial(moves_on, folder, latest_number(folder), process))
            pause.wait(dice.uniform(0.0, 0.3))
            if exited(process):
                break
            process.kill()
            process.communicate()
            process = lpml_process("resume", str(folder.path), "--plain", runs=runs)
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
        return folder
    finally:
        if not exited(process):
            process.kill()
            process.communicate()


def latest_number(folder: RunFolder) -> int:
    cut = Checkpoints(folder).latest()
    return 0 if cut is None else cut.manifest.number


def moves_on(folder: RunFolder, known: int, process: subprocess.Popen[str]) -> bool:
    return latest_number(folder) > known or exited(process)


def exited(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None


@pytest.fixture
def launcher() -> list[str]:
    """Words of `lpml run`, for the run that is disturbed."""
    return []


@pytest.fixture
def uninterrupted(tmp_path: Path) -> Callable[[int], RunFolder]:
    """The run that nobody disturbs."""

    def run(steps: int) -> RunFolder:
        runs = tmp_path / "quiet"
        runs.mkdir()
        (runs / "program.py").write_text(textwrap.dedent(SYNCHRONOUS))
        process = lpml_process("run", "program.py", "--plain", f"--steps={steps}", runs=runs)
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
        return RunFolder.all(runs)[0]

    return run


def compare(tmp_path: Path, quiet: RunFolder, steps: int, kills: int, launcher: list[str]) -> None:
    runs = tmp_path / "disturbed"
    runs.mkdir()
    (runs / "program.py").write_text(textwrap.dedent(SYNCHRONOUS))
    folder = killed_and_resumed(runs, steps, kills, kills, launcher)
    assert digest_of(folder) == digest_of(quiet)
    assert curve_of(folder) == curve_of(quiet)


def test_a_synchronous_run_that_is_killed_and_resumed_is_bit_equal(
    tmp_path: Path, uninterrupted: Callable[[int], RunFolder], launcher: list[str]
) -> None:
    compare(tmp_path, uninterrupted(150), 150, kills=2, launcher=launcher)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_synchronous_run_that_is_killed_twenty_times_is_bit_equal(
    tmp_path: Path, uninterrupted: Callable[[int], RunFolder], launcher: list[str]
) -> None:
    compare(tmp_path, uninterrupted(2000), 2000, kills=20, launcher=launcher)


def test_a_preempted_run_saves_says_so_and_goes_on(
    tmp_path: Path, uninterrupted: Callable[[int], RunFolder], launcher: list[str]
) -> None:
    quiet = uninterrupted(100)
    runs = tmp_path / "preempted"
    runs.mkdir()
    (runs / "program.py").write_text(textwrap.dedent(SYNCHRONOUS))
    process = lpml_process("run", "program.py", "--plain", "--steps=100", *launcher, runs=runs)
    assert until(lambda: bool(RunFolder.all(runs)))
    (folder,) = RunFolder.all(runs)
    assert until(lambda: folder.metrics_file("server/0").exists())
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert f"lpml resume {folder.name}" in said
    assert latest_number(folder) == 1
    process = lpml_process("resume", folder.name, "--plain", runs=runs)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert digest_of(folder) == digest_of(quiet)


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
    outcome = run.wait(30.0)
    assert (outcome.state, outcome.reason) == ("finished", "enough")
    last = latest_of(run.folder)
    assert last.manifest.number == 2
    assert last.load("witness/0") is False


def test_who_ended_the_program_is_said_even_if_all_have_returned_meanwhile(start: Launch) -> None:
    program = lpml.Program("ended")
    program.add_node(lpml.Node(Account), label="account")
    program.add_node(lpml.Node(Ender), label="ender")  # returns while the cut is taken
    outcome = start(program, checkpoint_every=60.0).wait(30.0)
    assert (outcome.state, outcome.reason) == ("finished", "enough")
