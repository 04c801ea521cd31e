"""How a process ends while a thread of it compiles, which nobody can interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import atexit
import sys

import jax
import jax.numpy as jnp

import lpml
from lpml.nodes.compiling import in_background


def function(x, length):
    for i in range(length):
        x = jnp.sort(jnp.sin(x) @ x + i, axis=i % 2)
    return x


class Compiles:
    def __init__(self, length: int) -> None:
        self.length = length

    def run(self) -> None:
        lowered = jax.jit(function, static_argnums=1).lower(jnp.ones((4, 4)), self.length)
        print("compiles", flush=True)
        in_background(lowered.compile)
        print("has compiled", flush=True)


def program(length: int = 300) -> lpml.Program:
    atexit.register(print, "the last words")
    p = lpml.Program("compiles")
    p.add_node(lpml.Node(Compiles, length))
    return p


if __name__ == "__main__":
    run = lpml.launch(program(int(sys.argv[1])), "local_mt")
    sys.stdin.readline()
    if sys.argv[2] == "stops":
        run.stop("it is told to")
    sys.exit(7)
"""


class Process:
    """Python with these arguments, until its node compiles."""

    def __init__(self, *arguments: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        assert self.popen.stdout is not None
        self.said = ""
        while not self.said.endswith("| compiles\n"):
            line = self.popen.stdout.readline()
            assert line, self.said + self.popen.communicate()[1]
            self.said += line

    def end(self, words: str = "") -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        out, err = self.popen.communicate(words, timeout=60)
        return self.popen.returncode, self.said + out, err


@pytest.fixture
def going() -> Iterator[list[Process]]:
    """Processes that end with the test."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with the program, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compiles.py").write_text(PROGRAM)
    return "compiles.py"


def test_an_interrupted_command_does_not_wait_for_a_compilation(
    file: str, going: list[Process]
) -> None:
    going.append(Process("-m", "lpml", "run", file, "--launch=local_mt", "--length=1000"))
    going[0].popen.send_signal(signal.SIGINT)
    began = time.monotonic()
    code, out, err = going[0].end()
    assert code == 130
    assert "terminate called" not in err
    assert "interrupted by SIGINT" in err
    assert out.endswith("the last words\n")
    assert "has compiled" not in out
    assert time.monotonic() - began < 30  # it takes a minute, and longer on a busy machine


@pytest.mark.parametrize("how", ["stops", "just ends"])
def test_an_interpreter_waits_for_a_compilation_that_a_run_has_left(
    file: str, how: str, going: list[Process]
) -> None:
    going.append(Process(file, "60", how))
    code, out, err = going[0].end("end\n")
    assert (code, err.partition("compiles/0: ")[0]) in ((7, ""), (7, "lpml: waits for "))
    assert out.endswith("the last words\n")


def test_an_interpreter_that_waits_for_a_compilation_can_be_interrupted(
    file: str, going: list[Process]
) -> None:
    going.append(Process(file, "300", "stops"))
    stdin, stderr = going[0].popen.stdin, going[0].popen.stderr
    assert stdin is not None
    assert stderr is not None
    stdin.write("end\n")
    stdin.flush()
    assert "waits for compiles/0" in stderr.readline()
    going[0].popen.send_signal(signal.SIGINT)
    code, out, _ = going[0].end()
    assert code == 130
    assert out.endswith("the last words\n")
