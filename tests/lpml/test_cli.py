"""The command line as its users meet it: real processes in an empty folder."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from lpml.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = '''
import threading
import lpml


class Greeter:
    def greet(self, name: str) -> str:
        return f"hello {name}"


class Guest:
    def __init__(self, greeter: Greeter, mode: str) -> None:
        self.greeter = greeter
        self.mode = mode

    def run(self) -> None:
        print(self.greeter.greet("you"))
        lpml.context().log({"loss": 0.5}, 1)
        lpml.context().progress(1, 4)
        if self.mode == "fail":
            raise ValueError("on purpose")
        if self.mode == "wait":
            print("waiting")
            while not lpml.context().wait(60):
                pass
        if self.mode == "deaf":
            print("waiting")
            threading.Event().wait(60)


def program(mode: str = "end") -> lpml.Program:
    """Greets.

    Args:
      mode: how it ends.
    """
    p = lpml.Program("greet")
    p.add_node(lpml.Node(Guest, p.add_node(lpml.Node(Greeter)), mode))
    return p
'''


class Here(Protocol):
    """Runs a command line in this process, which is quicker; for verbs that start nothing."""

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        sys.modules.pop("greeting", None)
        sys.modules.pop("bad", None)
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as ended:
            main(words)
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a program, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LPML_RUNS")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "greeting.py").write_text(PROGRAM)
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lpml", *words]


def lpml(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=60, check=False)


class Going:
    """A command that goes on, in a session of its own, with its output in files."""

    def __init__(self, *words: str) -> None:
        self.out, self.err = Path("out.txt"), Path("err.txt")
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                command(*words), stdout=out, stderr=err, start_new_session=True
            )

    def wait_for(self, text: str, path: Path | None = None) -> None:
        for _ in range(600):
            if text in (path or self.out).read_text():
                return
            if self.process.poll() is not None:
                break
            select.select([], [], [], 0.05)
        pytest.fail(f"no {text!r} in {self.out.read_text()!r}, {self.err.read_text()!r}")

    def end(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def going() -> Iterator[list[Going]]:
    """What a test starts; it is killed if the test did not end it."""
    started: list[Going] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


# run


def test_a_program_runs_to_its_end() -> None:
    done = lpml("run", "greeting.py", "--launch=local_mp")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["guest/0   | hello you"]
    assert re.fullmatch(
        r"lpml: greet finished after .* s.*; run folder .*/runs/greet-.*\n", done.stderr
    )
    (folder,) = Path("runs").iterdir()
    assert (folder / "logs" / "guest-0.log").read_text() == "hello you\n"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert json.loads((folder / "metrics" / "guest-0.jsonl").read_text())["loss"] == 0.5
    assert list(folder.glob("tensorboard/guest/0/events.*"))


@pytest.mark.parametrize("launch", ["local_mt", "local_mp"])
def test_the_first_failure_is_shown_last_with_node_and_log(launch: str) -> None:
    done = lpml("run", "greeting.py", "--mode", "fail", "--launch", launch)
    assert done.returncode == 1
    *_, cause, node, log = done.stderr.rstrip().splitlines()
    assert cause == "ValueError: on purpose"
    assert node.startswith("node guest/0 failed: ")
    assert Path(log.removeprefix("its log: ")).read_text().startswith("hello you\n")
    assert done.stderr.count("Traceback") == 1


def test_json_of_a_run_is_its_last_status() -> None:
    done = lpml("run", "greeting.py", "--json", "--launch=local_mt")
    result = json.loads(done.stdout)
    assert (result["state"], result["exit_code"], done.stderr) == ("finished", 0, "")
    assert {node["name"]: node["state"] for node in result["nodes"]}["guest/0"] == "finished"
    failed = lpml("run", "greeting.py", "--json", "--launch=local_mt", "--mode=fail")
    assert failed.returncode == json.loads(failed.stdout)["exit_code"] == 1
    assert json.loads(failed.stdout)["error"]["node"] == "guest/0"


def test_a_quiet_run_says_nothing() -> None:
    done = lpml("run", "greeting.py", "-q", "--launch=local_mt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run(number: signal.Signals, going: list[Going]) -> None:
    going.append(Going("run", "greeting.py", "--mode=wait", "--launch=local_mt"))
    going[0].wait_for("waiting")
    going[0].process.send_signal(number)
    assert going[0].end() == (143 if number == signal.SIGTERM else 130)
    assert "lpml: stopping" in going[0].err.read_text()
    assert f"interrupted by {number.name}" in going[0].err.read_text()


def test_a_second_interrupt_kills_at_once(going: list[Going]) -> None:
    going.append(Going("run", "greeting.py", "--mode=deaf", "--stop-timeout=50"))
    going[0].wait_for("waiting")
    os.killpg(going[0].process.pid, signal.SIGINT)
    going[0].wait_for("lpml: stopping", going[0].err)
    os.killpg(going[0].process.pid, signal.SIGINT)
    assert going[0].end() == 130


def test_on_a_terminal_a_table_shows_the_nodes(going: list[Going]) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("run", "greeting.py", "--mode=wait", "--launch=local_mt"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    seen, interrupted = "", False
    try:
        while select.select([ours], [], [], 30)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            seen += part.decode("utf-8", "replace")
            if not interrupted and "loss 0.5" in seen and "waiting" in seen:
                interrupted = True
                os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    for part_of in ("greet on local_mt", "guest/0", "25%", "hello you", "lpml: stopping"):
        assert part_of in plain
    assert "\x1b[?25h" in seen  # the cursor is shown again


# other verbs, on a run that goes on


def test_a_run_is_listed_asked_and_stopped_from_elsewhere(going: list[Going], here: Here) -> None:
    going.append(Going("run", "greeting.py", "--mode=wait"))
    going[0].wait_for("waiting")
    (status,) = json.loads(here("ps", "--json").stdout)
    assert (status["program"], status["state"]) == ("greet", "running")
    assert {node["name"] for node in status["nodes"]} == {"greeter/0", "guest/0"}
    assert status["run"] in here("ps").stdout
    stack = here("stack", "guest/0")
    assert "in run" in stack.stdout, stack.stderr
    assert "greeting.py" in stack.stdout
    wrong = here("stack", "guest/1")
    assert wrong.returncode == 2
    assert "did you mean 'guest/0'" in wrong.stderr
    following = Going("logs", "-f")
    going.append(following)
    stopped = here("stop", "--reason", "enough")
    assert stopped.stdout == f"{status['run']}: ended\n"
    assert going[0].end() == 0
    assert "greet stopped" in going[0].err.read_text()
    assert "enough" in going[0].err.read_text()
    assert following.end() == 0
    assert json.loads(here("ps", "--json").stdout) == []
    (ended,) = json.loads(here("ps", "--all", "--json").stdout)
    assert ended["state"] == "stopped"


def test_logs_and_curves_of_an_ended_run(here: Here) -> None:
    name = json.loads(lpml("run", "greeting.py", "--json", "--launch=local_mt").stdout)["run"]
    assert here("logs").stdout == "guest/0   | hello you\n"
    assert here("logs", name, "guest").stdout == "hello you\n"
    assert json.loads(here("logs", "greet", "--json", "-n", "1").stdout) == {
        "node": "guest/0",
        "line": "hello you",
    }
    drawn = lpml("plot", name, "--json")
    assert Path(json.loads(drawn.stdout)["file"]).read_bytes().startswith(b"\x89PNG")


# verbs that start nothing


def test_check_plan_graph_and_list_start_nothing(here: Here) -> None:
    assert here("check", "greeting.py").stdout == "greet: 2 nodes, 1 edge, no faults\n"
    plan = json.loads(here("plan", "greeting.py", "--json").stdout)
    assert [node["name"] for node in plan["nodes"]] == ["greeter/0", "guest/0"]
    assert "OMP_NUM_THREADS=1" in here("plan", "greeting.py").stdout
    assert here("graph", "greeting.py").stdout.startswith("flowchart")
    assert here("graph", "greeting.py", "-o", "g.svg").stdout == "g.svg\n"
    assert Path("g.svg").read_text().startswith("<svg")
    edges = json.loads(here("graph", "greeting.py", "--json").stdout)["edges"]
    assert edges == [{"source": "guest/0", "target": "greeter/0", "parameter": "greeter"}]
    assert {"digits", "hello"} <= {one["name"] for one in json.loads(here("list", "--json").stdout)}
    assert not Path("runs").exists()


def test_check_reports_every_fault_with_exit_code_2(here: Here) -> None:
    text = PROGRAM.replace("mode: str) -> None", "mode: object) -> None")
    Path("bad.py").write_text(text.replace(")), mode)", ")), threading.Lock())"))
    done = here("check", "bad.py", "--json")
    assert done.returncode == 2
    (fault,) = json.loads(done.stdout)["faults"]
    assert "guest/0" in fault
    assert "mode" in fault


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run no.py", 2, "no such file"),
        ("run", 2, "no program given"),
        ("run --mode=wait greeting.py", 2, "the program comes before its flags"),
        ("run greeting.py --moed=wait", 2, "--moed: no such flag; did you mean '--mode'?"),
        ("run greeting.py --luanch=local_mt", 2, "did you mean '--launch'?"),
        ("run greeting.py --mode", 2, "--mode"),
        ("run greeting.py --launch=local", 2, "no such launcher"),
        ("run greeting.py --stop-timeout=soon", 2, "--stop-timeout"),
        ("run greeting.py --directory=greeting.py", 1, "cannot be written"),
        ("graph greeting.py --format=png", 2, "no such format"),
        ("graph greeting.py -o no/where.svg", 2, "cannot be written"),
        ("stop", 2, "no run goes on"),
        ("stack guest/0", 2, "no run goes on"),
        ("logs nothing", 2, "no such run"),
        ("plot", 2, "no such run"),
        ("chekc greeting.py", 2, "No such command"),
    ],
)
def test_bad_usage_has_a_message_and_its_exit_code(
    words: str, code: int, message: str, here: Here
) -> None:
    done = here(*words.split())
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_errors_are_json_where_json_is_asked_for(here: Here) -> None:
    done = here("run", "no.py", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["type"] == "UsageError"


def test_help_shows_the_verbs_and_the_flags_of_a_program(here: Here) -> None:
    verbs = ("run", "check", "plan", "graph", "list", "ps", "logs", "stop", "stack", "plot")
    assert set(verbs) <= set(here("--help").stdout.split())
    text = here("run", "greeting.py", "--help").stdout
    for part in ("Greets.", "--mode STR", "how it ends.", "lpml run --help"):
        assert part in text
    assert "--stop-timeout" in here("run", "--help").stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [("lpml gra", "graph"), ("lpml run gree", "greeting.py"), ("lpml run --lau", "--launch")],
)
def test_the_shell_completes(line: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LPML_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert expected in lpml().stdout.split()
