"""What only processes promise: environments, deaths, and nothing left after any end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import lpml
from lpml.launchers import exits, processes, rendezvous
from tests.launching import Launch
from tests.lpml.inside import Hangs, Inside, program_of, wait_for_state
from tests.waiting import gone, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def start(processes: Launch) -> Launch:
    """Launches a program on processes."""
    return processes


def test_each_node_has_a_process_and_an_environment_of_its_own(start: Launch) -> None:
    program = program_of(lpml.Node(Inside), lpml.Node(Inside), cpu=2, env={"MINE": "yes"})
    with start(program) as run:
        one, two = run.client("node/0"), run.client("node/1")
        assert len({one.pid(), two.pid(), os.getpid()}) == 3
        assert one.pid() == run.status().nodes[0].pid
        environment = one.environment()
    assert environment["MINE"] == "yes"
    assert environment["OMP_NUM_THREADS"] == environment["NPROC"] == "2"
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["PATH"] == os.environ["PATH"]


def test_a_node_inherits_no_descriptor_of_its_launcher(start: Launch, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w"), start(program_of(lpml.Node(Inside))) as run:
        found = run.client("node/0").descriptors()
    assert str(tmp_path / "open") not in found
    ours = [name for name in found if not name.startswith(("socket:", "anon_inode:"))]
    log = str(run.folder.log_file("node/0"))
    assert sorted(set(ours) - {log}) == sorted(
        {"/dev/null", *(name for name in ours if name.endswith(".stacks"))}
    )
    sockets = [name for name in found if name.startswith("socket:")]
    assert len(sockets) <= 6  # control, listener, one connection, the server's own wake-ups


def test_a_node_sees_the_folder_and_the_path_of_its_launcher(start: Launch) -> None:
    with start(program_of(lpml.Node(Inside))) as run:
        cwd, path, argv = run.client("node/0").place()
    assert cwd == os.getcwd()
    assert path == [str(Path(entry).absolute()) for entry in sys.path]
    assert argv == sys.argv[:1]


def test_libraries_imported_before_the_fork_obey_the_environment_of_the_node(
    start: Launch,
) -> None:
    processes.warm(["numpy"])
    with start(program_of(lpml.Node(Inside), lpml.Node(Inside), cpu=2)) as run:
        one, two = run.client("node/0"), run.client("node/1")
        assert one.threads_of_blas() == 2
        assert one.random() != two.random()
    with start(program_of(lpml.Node(Inside), cpu=1)) as run:
        assert run.client("node/0").threads_of_blas() == 1


@pytest.mark.slow
def test_jax_imported_before_the_fork_obeys_the_environment_of_the_node(start: Launch) -> None:
    processes.warm(["jax"])
    # the second is an option that jax.config has no attribute for, and a backend must understand
    own = {"JAX_NUMPY_DTYPE_PROMOTION": "standard", "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false"}
    program = program_of(lpml.Node(Inside), env=own)
    with start(program) as run, lpml.deadline(60.0):
        assert run.client("node/0").platform_of_jax() == ("cpu", "standard")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "killed by SIGKILL, .* peak [0-9.]+ [MG]iB"),
        (signal.SIGSEGV, "killed by SIGSEGV, a crash in foreign code"),
        (signal.SIGTERM, "killed by SIGTERM"),
    ],
)
def test_death_by_a_signal_is_decoded_and_its_callers_learn_at_once(
    start: Launch, number: int, words: str
) -> None:
    run = start(program_of(lpml.Node(Inside)))
    with pytest.raises(lpml.NodeUnavailable):
        run.client("node/0").die(number)
    with pytest.raises(lpml.NodeError, match=words):
        run.wait(60.0)
    with pytest.raises(lpml.NodeUnavailable):
        run.client("node/0").pid()


class Caller:
    """Calls a node that will die."""

    def __init__(self, other: Inside) -> None:
        self._other = other

    def run(self) -> None:
        self._other.die(signal.SIGKILL)


def test_the_death_is_shown_and_not_the_failures_that_follow_from_it(start: Launch) -> None:
    program = lpml.Program("order")
    inside = program.add_node(lpml.Node(Inside))
    for _ in range(3):
        program.add_node(lpml.Node(Caller, inside))
    with pytest.raises(lpml.NodeError) as caught:
        start(program).wait(60.0)
    assert caught.value.node == "inside/0"


class Quits:
    """Leaves without a word."""

    def __init__(self, code: int) -> None:
        self._code = code

    def run(self) -> None:
        print("last words")
        os._exit(self._code)


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_without_a_report_is_a_failure(start: Launch, code: int) -> None:
    run = start(program_of(lpml.Node(Quits, code)))
    with pytest.raises(lpml.NodeError, match=f"exited with status {code}|ended without"):
        run.wait(60.0)
    assert "last words" in run.folder.log_file("node/0").read_text()


@pytest.mark.parametrize("how", ["sleep", "stopped"])
def test_a_node_that_sleeps_or_is_stopped_is_interrupted_in_a_stop(
    start: Launch, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpml.launchers.stopping.TERMINATE_AT", 0.02)
    run = start(program_of(lpml.Node(Hangs, how)))
    pid = wait_for_state(run, "T" if how == "stopped" else "S")
    outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")
    assert gone(pid)


@pytest.mark.parametrize("how", ["foreign", "masked"])
def test_a_node_that_cannot_be_interrupted_is_killed_and_named(start: Launch, how: str) -> None:
    run = start(program_of(lpml.Node(Hangs, how)), stop_timeout=0.5)
    pid = wait_for_state(run, "S")
    outcome = run.stop("enough")
    assert outcome.state == "stopped"
    assert outcome.reason == "enough; node/0 had to be killed"
    assert gone(pid)


def test_the_stack_of_a_node_that_holds_the_interpreter_is_had_all_the_same(
    start: Launch,
) -> None:
    run = start(program_of(lpml.Node(Hangs, "foreign")), stop_timeout=0.5)
    wait_for_state(run, "S")
    assert until(lambda: "in run" in run.stack("node/0", timeout=0.6))
    run.stop()


def test_a_stopped_node_says_that_it_is_stopped(start: Launch) -> None:
    run = start(program_of(lpml.Node(Hangs, "stopped")), stop_timeout=0.5)
    wait_for_state(run, "T")
    assert "stopped by a signal" in run.stack("node/0", timeout=0.3)
    assert run.status().nodes[0].state == "running"
    run.stop()


def test_no_descendant_of_a_node_survives_the_run(start: Launch) -> None:
    with start(program_of(lpml.Node(Inside))) as run:
        pids = run.client("node/0").spawn()
        assert not any(gone(pid) for pid in pids)
    assert all(gone(pid) for pid in pids)


def test_the_children_of_a_node_that_dies_go_with_it(start: Launch) -> None:
    run = start(program_of(lpml.Node(Inside)))
    pids = run.client("node/0").spawn()
    with pytest.raises(lpml.NodeUnavailable):
        run.client("node/0").die(signal.SIGKILL)
    with pytest.raises(lpml.NodeError):
        run.wait(60.0)
    assert all(gone(pid) for pid in pids)


LAUNCHER = """
    import os, sys, threading
    import lpml

    class Inside:
        def run(self):
            threading.Event().wait(1000)
        def pids(self):
            import subprocess
            return [os.getpid(), os.getppid(), subprocess.Popen(["sleep", "100"]).pid]

    program = lpml.Program("orphans")
    program.add_node(lpml.Node(Inside), label="node")
    run = lpml.launch(program, terminal=False)
    print(*run.client("node/0").pids(), flush=True)
    {end}
"""


def run_launcher(tmp_path: Path, end: str) -> tuple[subprocess.Popen[str], list[int]]:
    code = textwrap.dedent(LAUNCHER).format(end=end)
    environment = {**os.environ, "LPML_RUNS": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_nothing_survives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    process, pids = run_launcher(tmp_path, "threading.Event().wait(1000)")
    (info,) = rendezvous.runs()
    assert info.pid == process.pid
    process.kill()
    assert process.stdout is not None
    assert process.stdout.read() == ""
    process.stdout.close()
    process.wait()
    assert len(pids) == 3
    assert until(lambda: all(gone(pid) for pid in pids))
    assert until(lambda: not Path(info.control.removeprefix("unix:")).parent.exists())


@pytest.mark.parametrize("end", ["", "raise KeyError", "os._exit(0)", "sys.exit()"])
def test_nothing_survives_a_launcher_that_forgets_its_run(
    tmp_path: Path, end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    process, pids = run_launcher(tmp_path, end)
    process.communicate(timeout=90)
    assert until(lambda: all(gone(pid) for pid in pids))
    assert until(lambda: rendezvous.runs() == [])
    assert ("KeyError" in capfd.readouterr().err) == ("KeyError" in end)


@pytest.mark.slow
def test_a_hundred_nodes_come_up_and_go_down(start: Launch) -> None:
    program = program_of(*(lpml.Node(Inside) for _ in range(100)))
    with start(program) as run:
        pids = {run.client(f"node/{i}").pid() for i in range(100)}
    assert len(pids) == 100
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize(
    ("code", "facts", "words"),
    [
        (3, {}, "exited with status 3"),
        (-9, {"peak": 3 << 30, "machine": 4 << 30}, "likely out of memory, peak 3.0 GiB"),
        (-9, {"peak": 1 << 20, "machine": 4 << 30}, "or by somebody, peak 1 MiB"),
        (-9, {"oom": True}, "killed by SIGKILL, out of memory"),
        (-7, {}, "killed by SIGBUS, a crash in foreign code, or a full /dev/shm"),
        (-64, {}, "signal 64|SIGRTMAX"),
    ],
)
def test_exits_are_decoded(code: int, facts: dict[str, Any], words: str) -> None:
    import re

    assert re.search(words, exits.decode(code, **facts))
