"""What only processes promise: environments, deaths, and nothing left after any end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import lpml
from lpml.launchers import Run, devices, exits, processes, rendezvous
from lpml.launchers.compiling import compile
from lpml.launchers.server_process import cool, take
from tests.waiting import gone, until

Launch = Callable[..., Run]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def start(tmp_path: Path) -> Launch:
    """Launches a program on processes."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 30.0}
    return lambda program, **changes: lpml.launch(program, "local_mp", **{**options, **changes})


def program_of(*nodes: lpml.Node[..., Any], **resources: Any) -> lpml.Program:
    program = lpml.Program("tested")
    with program.group("node", resources=lpml.Resources(**resources)):
        for node in nodes:
            program.add_node(node, label="node")
    return program


class Inside:
    """Looks at its own process."""

    def pid(self) -> int:
        return os.getpid()

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def descriptors(self) -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:  # the one that listed the folder
                continue
        return found

    def place(self) -> tuple[str, list[str], list[str]]:
        return os.getcwd(), sys.path, sys.argv

    def random(self) -> float:
        import numpy as np

        return float(np.random.rand())

    def threads_of_blas(self) -> int:
        import numpy as np
        import threadpoolctl

        np.dot(np.ones((4, 4)), np.ones((4, 4)))
        pools = threadpoolctl.threadpool_info()
        return max((pool["num_threads"] for pool in pools), default=0)

    def platform_of_jax(self) -> tuple[str, str]:
        import jax

        return jax.devices()[0].platform, str(jax.config.values["jax_numpy_dtype_promotion"])

    def spawn(self) -> tuple[int, int]:
        """A child, and one that has left this session and this parent."""
        child = subprocess.Popen(["sleep", "100"], stdout=subprocess.DEVNULL)
        orphan = subprocess.check_output(["sh", "-c", "setsid sleep 101 >&- 2>&- & echo $!"])
        return child.pid, int(orphan)

    def fill(self, size: int) -> int:
        """Takes so many bytes of memory, which the kernel needs time to take back."""
        self.memory = b"x" * size
        return os.getpid()

    def die(self, number: int) -> None:
        os.kill(os.getpid(), number)
        lpml.context().clock.wait(60.0)  # another thread may be the one that takes the signal


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
        run.wait(20.0)
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
        start(program).wait(20.0)
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
        run.wait(20.0)
    assert "last words" in run.folder.log_file("node/0").read_text()


class Hangs:
    """Hangs where Python cannot be reached, from when its log says so."""

    def __init__(self, how: str) -> None:
        self._how = how

    def run(self) -> None:
        if self._how == "masked":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        print("hangs")
        if self._how == "foreign":
            lock = ctypes.create_string_buffer(64)
            for _ in range(2):  # the second waits for the first, and keeps the interpreter's lock
                ctypes.PyDLL(None).pthread_mutex_lock(lock)
        if self._how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait(1000.0)


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


def wait_for_state(run: Run, state: str) -> int:
    """The pid of the first node, once it hangs and its process is in this state."""
    words = {"T": psutil.STATUS_STOPPED, "S": psutil.STATUS_SLEEPING}
    assert until(lambda: "hangs" in run.folder.log_file("node/0").read_text())
    assert until(lambda: run._describe({}).nodes[0].state == "running")
    pid = run._describe({}).nodes[0].pid
    assert until(lambda: psutil.Process(pid).status() == words[state])
    return pid


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
        run.wait(20.0)
    assert all(gone(pid) for pid in pids)


def forkserver_of(run: Run) -> psutil.Process:
    parent = psutil.Process(run.status().nodes[0].pid).parent()
    assert parent is not None
    return parent


def test_the_death_of_the_forkserver_ends_the_run_and_leaves_nothing(start: Launch) -> None:
    run = start(program_of(lpml.Node(Inside)))
    pids = [*run.client("node/0").spawn(), run.client("node/0").pid()]
    forkserver_of(run).kill()
    with pytest.raises(lpml.NodeError, match="forkserver"):
        run.wait(20.0)
    assert all(gone(pid) for pid in pids)
    assert rendezvous.runs() == []


def test_no_restart_policy_outlives_the_forkserver(start: Launch) -> None:
    program = lpml.Program("p")
    with program.group("node", restart=lpml.Restart.on_failure(3, backoff=0.01)):
        program.add_node(lpml.Node(Inside))
    run = start(program)
    pid = run.client("node/0").fill(1 << 29)
    forkserver_of(run).kill()
    with pytest.raises(lpml.NodeError, match="forkserver"):
        run.wait(30.0)
    assert gone(pid)


def test_a_stopped_forkserver_does_not_keep_a_run_from_ending(start: Launch) -> None:
    run = start(program_of(lpml.Node(Hangs, "masked")), stop_timeout=0.5)
    pid = wait_for_state(run, "S")
    forkserver_of(run).suspend()
    assert run.stop("enough").state == "stopped"
    assert gone(pid)


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
    process.communicate(timeout=30)
    assert until(lambda: all(gone(pid) for pid in pids))
    assert until(lambda: rendezvous.runs() == [])
    assert ("KeyError" in capfd.readouterr().err) == ("KeyError" in end)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # jax, if another test imported it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fork_of_the_launcher_does_not_keep_its_run_alive(start: Launch) -> None:
    run = start(program_of(lpml.Node(Inside)))
    pids = [run.client("node/0").pid(), forkserver_of(run).pid]
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        assert run.stop().reason == "it was stopped"  # nobody had to be killed
        assert all(gone(pid) for pid in pids)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def warm_forkserver() -> psutil.Process:
    """The child that is one; it has no command line yet while the system executes it."""

    def found() -> list[psutil.Process]:
        return [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]

    assert until(lambda: bool(found()))
    (server,) = found()
    return server


def test_a_forkserver_that_dies_before_it_forks_fails_the_run(start: Launch) -> None:
    processes.warm()
    server = warm_forkserver()
    server.suspend()
    run = start(program_of(lpml.Node(Inside)))
    server.kill()
    with pytest.raises(lpml.NodeError, match="forkserver"):
        run.wait(20.0)


def test_the_pid_of_a_node_that_answers_is_known_even_if_its_parent_has_not_said_it_yet(
    start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, unsaid = take([]), list[dict[str, Any]]()
    read = server.inbox.read

    def late() -> list[dict[str, Any]]:
        unsaid.extend(read())
        if all(message["what"] == "forked" for message in unsaid):
            return []
        said, unsaid[:] = list(unsaid), []
        return said

    monkeypatch.setattr(server.inbox, "read", late)
    monkeypatch.setattr("lpml.launchers.processes.take", lambda modules: server)
    with start(program_of(lpml.Node(Inside))) as run:
        assert run.client("node/0").pid() == run.status().nodes[0].pid


def test_a_node_that_is_killed_before_its_pid_is_known_is_killed_alone(start: Launch) -> None:
    processes.warm()
    server = warm_forkserver()
    server.suspend()
    with start(program_of(lpml.Node(Inside), lpml.Node(Inside)), stop_timeout=0.2) as run:
        run.scale("node", 1)
        assert until(lambda: not run._supervisor.leaving)  # the kill resumes the forkserver
        assert run.client("node/0").pid() == run.status().nodes[0].pid


def test_a_warm_forkserver_that_is_not_used_is_ended() -> None:
    processes.warm(["json"])
    processes.warm()
    child = warm_forkserver()
    cool()
    assert gone(child.pid)


@pytest.mark.slow
def test_a_hundred_nodes_come_up_and_go_down(start: Launch) -> None:
    program = program_of(*(lpml.Node(Inside) for _ in range(100)))
    with start(program) as run:
        pids = {run.client(f"node/{i}").pid() for i in range(100)}
    assert len(pids) == 100
    assert all(gone(pid) for pid in pids)


def test_accelerators_are_shared_out_by_need() -> None:
    machine = devices.Machine(cpu=4, gpus=("0", "1", "2"))
    needs = {
        "small/0": lpml.Resources(gpu=0.5),
        "small/1": lpml.Resources(gpu=0.5),
        "large/0": lpml.Resources(gpu=2),
        "none/0": lpml.Resources(),
    }
    assert devices.place(needs, machine) == {
        "large/0": ("0", "1"),
        "small/0": ("2",),
        "small/1": ("2",),
        "none/0": (),
    }
    assert devices.faults(needs, machine) == []
    (fault,) = devices.faults({**needs, "more/0": lpml.Resources(gpu=0.5)}, machine)
    assert "more/0: Resources(gpu=0.5)" in fault


def test_the_environment_of_a_node_says_what_it_may_use() -> None:
    shared = devices.environment(lpml.Resources(cpu=1.5, gpu=0.5, env={"NPROC": "7"}), ("2",))
    assert shared["CUDA_VISIBLE_DEVICES"] == "2"
    assert shared["OMP_NUM_THREADS"] == "2"
    assert shared["NPROC"] == "7"
    assert shared["XLA_PYTHON_CLIENT_MEM_FRACTION"] == shared["XLA_CLIENT_MEM_FRACTION"] == "0.5"
    assert "JAX_PLATFORMS" not in shared
    assert devices.environment(lpml.Resources(), ())["JAX_PLATFORMS"] == "cpu"


def test_memory_that_the_machine_does_not_have_is_a_fault() -> None:
    machine = devices.Machine(cpu=4, memory=2**30)
    (fault,) = devices.faults({"a/0": lpml.Resources(memory=2**31)}, machine)
    assert "2.0 GiB" in fault


def test_a_plan_says_what_would_be_started() -> None:
    program = program_of(lpml.Node(Inside), cpu=1, env={"MINE": "yes"})
    plan = compile(program, "local_mp")
    (node,) = plan.to_json()["nodes"]
    assert node["environment"]["MINE"] == "yes"
    assert node["service"] == "Inside"
    assert "pid" in node["methods"]
    assert node["payload_bytes"] > 0


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
