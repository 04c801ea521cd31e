"""What mypy and pyright say of good and of mis-wired programs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lpml.graph import check

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOOD = sorted(HERE.glob("good_*.py"))
BAD = sorted(HERE.glob("bad_*.py"))
EXPECTED = re.compile(r"# error: (.+)$")

Errors = dict[tuple[str, int], str]  # {(file's name, line): messages}


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # 1 = there are errors
    return done.stdout


def mypy_errors(folder: Path) -> Errors:
    cache = f"--cache-dir={ROOT / '.mypy_cache'}"
    found: Errors = {}
    for line in run(folder, "mypy", "--strict", "--no-pretty", cache, ".").splitlines():
        if match := re.match(r"(.+?):(\d+): (?:error|note): (.*)", line):
            add(found, match[1], int(match[2]), match[3])
    return found


def pyright_errors(folder: Path) -> Errors:
    settings = {"extraPaths": [str(ROOT)], "pythonVersion": "3.10", "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    output = run(folder, "pyright", "--outputjson", "--pythonpath", sys.executable)
    found: Errors = {}
    for one in json.loads(output)["generalDiagnostics"]:
        if one["severity"] == "error":
            add(found, one["file"], one["range"]["start"]["line"] + 1, one["message"])
    return found


def add(found: Errors, path: str, line: int, message: str) -> None:
    key = (Path(path).name, line)
    found[key] = f"{found.get(key, '')}\n{message}"


CHECKERS: dict[str, Callable[[Path], Errors]] = {"mypy": mypy_errors, "pyright": pyright_errors}


def expected_errors() -> dict[tuple[str, int], str]:
    return {
        (path.name, number): match.group(1)
        for path in BAD
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := EXPECTED.search(line))
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_good_programs_pass_and_each_wrong_line_is_refused(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker, reason=f"{checker} is not installed; pip install lpml[dev]")
    for path in GOOD + BAD:
        shutil.copy(path, tmp_path)
    found, expected = CHECKERS[checker](tmp_path), expected_errors()
    assert {key: found[key] for key in found.keys() - expected.keys()} == {}
    assert sorted(expected.keys() - found.keys()) == [], "these lines should have been refused"
    for key, text in expected.items():
        assert text.lower() in found[key].lower(), key


def test_a_program_that_the_checkers_accept_can_be_built() -> None:
    assert [path.name for path in GOOD] == ["good_graphs.py"]
    program = runpy.run_path(str(GOOD[0]))["program"]
    assert check(program) == ()
