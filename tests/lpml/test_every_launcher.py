"""What every launcher promises: one suite, run on each row of `tests/tables.py`."""

from __future__ import annotations

import fcntl
import functools
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

import pytest

import lpml
from lpml import wire
from lpml.launchers import Run, rendezvous
from lpml.launchers.control import connect
from lpml.launchers.names import uses_processes
from tests.tables import LAUNCHERS
from tests.waiting import until

Launch = Callable[..., Run]


@pytest.fixture(params=LAUNCHERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Launch:
    """Launches a program on the launcher of the row; the run folder is kept for the test."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 30.0}
    return lambda program, **changes: lpml.launch(program, request.param, **{**options, **changes})


def program_of(*nodes: lpml.Node[..., Any], name: str = "tested") -> lpml.Program:
    """Every node in a group `node`."""
    program = lpml.Program(name)
    for node in nodes:
        program.add_node(node, label="node")
    return program


class Counter:
    """A service without a loop."""

    def __init__(self, start: int = 0) -> None:
        self._count = start

    def add(self, amount: int = 1) -> int:
        self._count += amount
        return self._count


class Adder:
    """Calls another node a few times and is done."""

    def __init__(self, counter: Counter, times: int = 3, done: Path | None = None) -> None:
        self._add = counter.add  # a bound method is fetched before the other node is up
        self._times = times
        self._done = done

    def run(self) -> None:
        last = 0
        for _ in range(self._times):
            last = self._add()
        if self._done is not None:
            self._done.write_text(str(last))


class Waiter:
    """Runs until it is stopped."""

    def run(self) -> None:
        while not lpml.context().should_stop:
            lpml.context().wait(60.0)

    def answer(self) -> str:
        return "here"


class Raiser:
    """Fails where it is told to."""

    def __init__(self, where: str, message: str = "boom") -> None:
        if where == "constructor":
            raise ValueError(message)
        self._message = message

    def run(self) -> None:
        raise ValueError(self._message)


def test_a_service_answers_until_the_run_is_stopped(start: Launch) -> None:
    with start(program_of(lpml.Node(Counter, 5))) as run:
        assert run.client("node/0").add(2) == 7
        assert run.client("node/0").add() == 8
        outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")
    assert outcome.seconds > 0
    with pytest.raises(lpml.NodeUnavailable):
        run.client("node/0").add()


def test_a_program_finishes_when_every_run_method_has_returned(
    start: Launch, tmp_path: Path
) -> None:
    program = lpml.Program("sums")
    counter = program.add_node(lpml.Node(Counter), label="counter")
    for i in range(3):
        program.add_node(lpml.Node(Adder, counter, 4, tmp_path / f"done-{i}"), label="adder")
    run = start(program)
    assert run.wait(30.0).state == "finished"
    assert max(int((tmp_path / f"done-{i}").read_text()) for i in range(3)) == 12
    states = {node.name: node.state for node in run.status().nodes}
    assert states == {"counter/0": "stopped"} | {f"adder/{i}": "finished" for i in range(3)}


class Ping:
    """Half of a cycle."""

    def __init__(self, other: Pong) -> None:
        self._other = other

    @lpml.concurrent
    def ping(self) -> str:
        return "ping"

    def both(self) -> str:
        return self._other.pong()


class Pong:
    """The other half, which calls back."""

    def __init__(self, other: Ping) -> None:
        self._other = other

    def pong(self) -> str:
        return self._other.ping() + "-pong"


def test_nodes_call_each_other_in_a_cycle(start: Launch) -> None:
    program = lpml.Program("cycle")
    ping = lpml.Node.declare(Ping)
    pong = program.add_node(lpml.Node(Pong, ping.handle()))
    ping.configure(pong)
    program.add_node(ping)
    with start(program) as run:
        assert run.client("ping/0").both() == "ping-pong"


class CanAdd(Protocol):
    def add(self, amount: int = 1) -> int: ...


class NeedsOtherToBuild:
    """Its constructor calls another node, which may not be up yet."""

    def __init__(self, counter: CanAdd) -> None:
        self._count = counter.add(10)

    def count(self) -> int:
        return self._count


class SlowCounter:
    """Takes a moment to build."""

    def __init__(self) -> None:
        lpml.context().wait(0.1)
        self._count = 0

    def add(self, amount: int = 1) -> int:
        self._count += amount
        return self._count


def test_a_call_to_a_node_that_is_not_up_yet_waits_for_it(start: Launch) -> None:
    program = lpml.Program("early")
    slow = lpml.Node.declare(SlowCounter)
    program.add_node(lpml.Node(NeedsOtherToBuild, slow.handle()), label="early")
    slow.configure()
    program.add_node(slow, label="late")
    with start(program) as run:
        assert run.client("early/0").count() == 10


class Stopper:
    """Ends the program from inside."""

    def run(self) -> None:
        lpml.context().stop_program("target reached")
        lpml.context().wait(60.0)


def test_a_node_may_end_the_program(start: Launch) -> None:
    outcome = start(program_of(lpml.Node(Stopper), lpml.Node(Waiter))).wait(30.0)
    assert (outcome.state, outcome.reason) == ("finished", "target reached")


@pytest.mark.parametrize("where", ["constructor", "run"])
def test_a_failure_names_node_cause_and_log_and_stops_the_program(
    start: Launch, where: str
) -> None:
    run = start(program_of(lpml.Node(Waiter), lpml.Node(Raiser, where)))
    with pytest.raises(lpml.NodeError) as caught:
        run.wait(30.0)
    error = caught.value
    assert error.node == "node/1"
    assert "ValueError: boom" in error.reason
    assert f"raise ValueError({'message' if where == 'constructor' else 'self._message'})" in (
        error.traceback
    )
    assert "worker.py" not in error.traceback
    assert error.log == str(run.folder.log_file("node/1"))
    assert "ValueError: boom" in Path(error.log).read_text()
    assert run.failure is not None
    assert {node.name: node.state for node in run.status().nodes} == {
        "node/0": "stopped",
        "node/1": "failed",
    }
    assert run.stop().state == "failed"


def test_leaving_the_block_raises_the_failure_of_the_run(start: Launch) -> None:
    with pytest.raises(lpml.NodeError, match="boom"), start(program_of(lpml.Node(Raiser, "run"))):
        assert until(lambda: bool(rendezvous.runs()) is False)


def test_leaving_the_block_never_hides_its_own_exception(start: Launch) -> None:
    run = start(program_of(lpml.Node(Raiser, "run")))
    with pytest.raises(KeyError), run:
        raise KeyError("mine")


class Refuser:
    """A method that raises, and a caller of it."""

    def refuse(self) -> None:
        raise LookupError("nothing here")


class Victim:
    """Fails because a method of another node raised."""

    def __init__(self, other: Refuser) -> None:
        self._other = other

    def run(self) -> None:
        self._other.refuse()


def test_an_exception_of_a_method_fails_its_caller_and_not_its_node(start: Launch) -> None:
    program = lpml.Program("blame")
    refuser = program.add_node(lpml.Node(Refuser))
    program.add_node(lpml.Node(Victim, refuser))
    run = start(program)
    with pytest.raises(lpml.NodeError) as caught:
        run.wait(30.0)
    assert caught.value.node == "victim/0"
    assert "nothing here" in caught.value.reason
    assert "in refuse" in caught.value.traceback


def test_several_runs_at_once_do_not_mix(start: Launch) -> None:
    with (
        start(program_of(lpml.Node(Counter, 10))) as one,
        start(program_of(lpml.Node(Counter, 20))) as two,
    ):
        assert one.name != two.name
        assert one.client("node/0").add() == 11
        assert two.client("node/0").add() == 21
        assert one.stop().state == "stopped"
        assert two.client("node/0").add() == 22


def test_a_run_may_be_launched_and_stopped_in_any_thread(start: Launch) -> None:
    answers: list[object] = []

    def elsewhere() -> None:
        runs.append(start(program_of(lpml.Node(Counter))))
        answers.append(runs[0].client("node/0").add())

    runs: list[Run] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert answers == [1]
    assert runs[0].client("node/0").add() == 2  # the thread that launched it has ended
    assert runs[0].stop().state == "stopped"


class Mutator:
    """Changes what it was given."""

    def __init__(self, values: list[int]) -> None:
        values.append(1)
        self._values = values

    def values(self) -> list[int]:
        return self._values


def test_each_node_has_its_own_copy_of_its_arguments(start: Launch) -> None:
    values = [0]
    with start(program_of(lpml.Node(Mutator, values), lpml.Node(Mutator, values))) as run:
        assert run.client("node/0").values() == [0, 1]
        assert run.client("node/1").values() == [0, 1]
    assert values == [0]


class Printer:
    """Prints while it is built, while it serves and while it runs."""

    def __init__(self) -> None:
        print("built")
        self._running = False

    def shout(self, word: str) -> None:
        while not self._running:
            lpml.context().wait(0.01)
        print(word)
        print("trouble", file=sys.stderr)

    def run(self) -> None:
        self._running = True
        lpml.context().wait(60.0)
        print("no end of line", end="")


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


def test_an_unknown_node_is_refused_with_the_closest_name(start: Launch) -> None:
    with start(program_of(lpml.Node(Counter))) as run:
        with pytest.raises(lpml.UsageError, match="did you mean 'node/0'"):
            run.client("nod/0")
        with pytest.raises(lpml.UsageError, match="did you mean 'node/0'"):
            run.stack("nodes/0")


def test_waiting_for_a_run_that_goes_on_times_out_and_stops_nothing(start: Launch) -> None:
    with start(program_of(lpml.Node(Waiter))) as run:
        with pytest.raises(TimeoutError, match="still runs"):
            run.wait(0.01)
        assert run.client("node/0").answer() == "here"


class Blocker(Protocol):
    def block(self) -> None: ...


class Blocks:
    """Its method waits for what never comes."""

    def __init__(self) -> None:
        self._condition = lpml.context().clock.condition()

    def block(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: False)


class Blocked:
    """Waits in a call to another node."""

    def __init__(self, other: Blocker) -> None:
        self._other = other

    def run(self) -> None:
        self._other.block()


def test_a_stop_reaches_nodes_that_are_blocked_in_calls(start: Launch) -> None:
    program = lpml.Program("blocked")
    blocks = program.add_node(lpml.Node(Blocks))
    program.add_node(lpml.Node(Blocked, blocks))
    with start(program) as run:
        assert until(lambda: run.status().nodes[1].state == "running")
        outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")  # nobody had to be killed


class Deaf:
    """Never asks whether to stop."""

    def run(self) -> None:
        while True:
            pass


def test_a_loop_that_never_asks_is_interrupted_before_the_deadline(
    start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpml.launchers.stopping.TERMINATE_AT", 0.05)
    run = start(program_of(lpml.Node(Deaf), lpml.Node(Waiter)))
    assert until(lambda: run.status().nodes[0].state == "running")
    outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")


class Leaver:
    """Ends its run in ways that are no failure."""

    def __init__(self, how: str) -> None:
        self._how = how

    def run(self) -> None:
        if self._how == "exit":
            sys.exit(0)
        raise lpml.ProgramStopped("I have seen enough")


@pytest.mark.parametrize("how", ["exit", "stopped"])
def test_leaving_run_by_exit_or_program_stopped_is_no_failure(start: Launch, how: str) -> None:
    assert start(program_of(lpml.Node(Leaver, how))).wait(30.0).state == "finished"


class Asynchronous:
    """Its loop is a coroutine."""

    def __init__(self, counter: Counter, done: Path) -> None:
        self._counter = counter
        self._done = done

    async def run(self) -> None:
        self._done.write_text(str(await lpml.acall(self._counter.add, 5)))


def test_run_may_be_a_coroutine(start: Launch, tmp_path: Path) -> None:
    program = lpml.Program("coroutine")
    counter = program.add_node(lpml.Node(Counter))
    program.add_node(lpml.Node(Asynchronous, counter, tmp_path / "done"))
    assert start(program).wait(30.0).state == "finished"
    assert (tmp_path / "done").read_text() == "5"


class NeverBuilt:
    """Its constructor does not return while somebody else has locked a file."""

    def __init__(self, file: Path) -> None:
        with file.open("w") as opened:
            self._hang(opened)

    def _hang(self, file: TextIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_a_node_that_never_starts_fails_and_says_where_it_hangs(
    start: Launch, tmp_path: Path
) -> None:
    program = program_of(lpml.Node(NeverBuilt, tmp_path / "file"))
    with (tmp_path / "file").open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        run = start(program, start_timeout=2.0, stop_timeout=0.5)
        stack = run.stack("node/0") if until(lambda: "_hang" in run.stack("node/0")) else ""
        assert "_hang" in stack
        with pytest.raises(lpml.NodeError, match=r"did not return within 2 s") as caught:
            run.wait(30.0)
        assert "_hang" in caught.value.traceback
        if not uses_processes(run.launch):  # a thread that waits in foreign code is given up
            assert "cannot be killed" in run.stop().reason
    assert until(lambda: not any(t.name == "node/0" for t in threading.enumerate()))


def test_nodes_of_one_process_call_each_other_and_keep_their_logs_apart(start: Launch) -> None:
    program = lpml.Program("together")
    with program.group("shared", colocate=True):
        counter = program.add_node(lpml.Node(Counter), label="counter")
        program.add_node(lpml.Node(NeedsOtherToBuild, counter), label="user")
        program.add_node(lpml.Node(Printer), label="printer")
    with start(program) as run:
        names = [node.name for node in run.plan.nodes]
        assert run.client(names[1]).count() == 10
        run.client(names[2]).shout("hello")
        assert len({node.pid for node in run.status().nodes}) == 1
    assert "hello" in run.folder.log_file(names[2]).read_text()
    assert run.folder.log_file(names[0]).read_text() == ""


def test_other_processes_find_a_run_and_stop_it(start: Launch) -> None:
    run = start(program_of(lpml.Node(Waiter)))
    (info,) = [info for info in rendezvous.runs() if info.run == run.name]
    assert info.folder == str(run.folder.path)
    control = connect(info.control)
    assert control.status()["nodes"][0]["name"] == "node/0"
    assert "thread" in control.stack("node/0") or "File" in control.stack("node/0")
    control.stop("from elsewhere")
    outcome = run.wait(30.0)
    assert (outcome.state, outcome.reason) == ("stopped", "from elsewhere")
    assert run.name not in [info.run for info in rendezvous.runs()]
    wire.close(control)


def test_a_run_folder_that_cannot_be_had_is_a_launch_error(start: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(lpml.LaunchError, match="file"):
        start(program_of(lpml.Node(Counter)), directory=tmp_path / "file")


def test_a_socket_folder_that_cannot_be_had_is_a_launch_error(
    start: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LPML_SOCKETS", str(tmp_path / "file"))
    with pytest.raises(lpml.LaunchError, match="LPML_SOCKETS"):
        start(program_of(lpml.Node(Counter)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_time_limit_fails_the_run_and_names_who_was_not_done(start: Launch) -> None:
    run = start(program_of(lpml.Node(Counter), lpml.Node(Waiter)), time_limit=0.5)
    with pytest.raises(lpml.NodeError, match=r"did not end within 0.5 s"):
        run.wait(30.0)


def test_the_faults_of_a_program_are_reported_before_anything_starts(
    start: Launch, tmp_path: Path
) -> None:
    program = program_of(lpml.Node(Counter))
    with program.group("big", resources=lpml.Resources(cpu=10_000, custom={"tpu": 1})):
        program.add_node(lpml.Node(Counter))
    with pytest.raises(lpml.GraphError) as caught:
        start(program)
    faults = "\n".join(caught.value.faults)
    assert "big/0" in faults
    assert "10000" in faults
    assert "tpu" in faults
    assert list(tmp_path.iterdir()) == []


def test_a_second_stop_kills_at_once(start: Launch) -> None:
    program = program_of(lpml.Node(Deaf))
    run = start(program, stop_timeout=60.0)
    assert until(lambda: run.status().nodes[0].state == "running")
    first = threading.Thread(target=functools.partial(run.stop, "enough"))
    first.start()
    assert until(lambda: run.status().state == "stopping")
    outcome = run.stop("now", timeout=0.5)
    first.join()
    assert outcome.state == "stopped"
    assert outcome.seconds < 30.0  # it would be interrupted after 36


def test_an_unknown_launcher_is_a_usage_error() -> None:
    with pytest.raises(lpml.UsageError, match="did you mean 'local_mp'"):
        lpml.launch(program_of(lpml.Node(Counter)), "local_mpp")


def test_the_test_launcher_removes_its_folder() -> None:
    with lpml.launch(program_of(lpml.Node(Counter)), "test", terminal=False) as run:
        assert run.folder.path.is_dir()
    assert not run.folder.path.exists()
