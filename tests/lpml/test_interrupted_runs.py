"""Whole processes: killed, preempted, and resumed by the command line."""

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

import pytest

from lpml.record.checkpoints import Checkpoints
from lpml.record.folder import RunFolder
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent


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
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 143, said
    assert f"lpml resume {folder.name}" in said
    assert latest_number(folder) == 1
    process = lpml_process("resume", folder.name, "--plain", runs=runs)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert digest_of(folder) == digest_of(quiet)
