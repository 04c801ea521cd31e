"""The documentation is run: every block of every page, every example in a docstring, every link.

A page is one session. Its blocks run in order, in one namespace, in a temporary folder:

- `python`: executed; functions named `test_*` that take nothing are called. A block that begins
  with the comment `# name.py` is a file: it is written, not executed.
- `text` after `<!-- output -->`: what the block before it printed, `...` standing for anything.
- `console`: lines that begin with `$ lpml` are run, in a shell, and must exit with 0 (or with N
  after `<!-- exit: N -->`); the lines after them are what is printed, `...` standing for anything.
- a block after `<!-- skip: why -->` is not run.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import pytest

from lpml.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("lpml", "lpml/nodes", "lpml/programs")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__main__.py"
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (\w+)(?:: (.*?))? -->\s*\Z")
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int
    language: str
    text: str
    note: str  # the word of the html comment just before it
    argument: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        note = _COMMENT.search(before)
        word, argument = (note[1], note[2] or "") if note else ("", "")
        found.append(Block(before.count("\n") + 1, match[1], match[2], word, argument))
    return found


class Session:
    """The blocks of one page, run one after the other."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.module = types.ModuleType(f"docs_{page.stem}")
        self.printed = ""

    def run(self, block: Block) -> None:
        if block.note == "skip":
            return
        if block.note == "output":
            self.compare(block, block.text, self.printed)
        elif block.language == "python":
            self.python(block)
        elif block.language == "console":
            self.console(block)

    def python(self, block: Block) -> None:
        file = re.match(r"# (\w+\.py)\n", block.text)
        if file:
            (self.folder / file[1]).write_text(block.text)
            return
        padding = "\n" * block.line  # so that tracebacks show the line of the page
        code = compile(padding + block.text, str(self.page), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, self.module.__dict__)
            self.tests(block)
        self.printed = output.getvalue()

    def tests(self, block: Block) -> None:
        for name in re.findall(r"^def (test_\w+)\(\)", block.text, re.MULTILINE):
            self.module.__dict__[name]()

    def console(self, block: Block) -> None:
        commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        for command in commands:
            line, _, expected = command.partition("\n")
            if line.split()[0] == "lpml":
                self.shell(block, line, expected)

    def shell(self, block: Block, line: str, expected: str) -> None:
        lpml = f"{shlex.quote(sys.executable)} -m lpml"
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            re.sub(r"\blpml(?= )", lpml, line, count=1),
            shell=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "100", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        code = int(block.argument) if block.note == "exit" else 0
        assert done.returncode == code, f"{self.where(block)}: {line}\n{done.stdout}"
        if expected.strip():
            self.compare(block, expected, done.stdout)

    def compare(self, block: Block, expected: str, found: str) -> None:
        if not doctest.OutputChecker().check_output(expected, found, _FLAGS):
            pytest.fail(f"{self.where(block)}: the page shows\n{expected}\nbut it is\n{found}")

    def where(self, block: Block) -> str:
        return f"{self.page.relative_to(ROOT)}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPML_RUNS", str(tmp_path / "runs"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, session.module.__name__, session.module)
    cloudpickle.register_pickle_by_value(session.module)
    known = set(sys.modules)
    try:
        for block in blocks(page):
            session.run(block)
    finally:
        cloudpickle.unregister_pickle_by_value(session.module)
        for name in set(sys.modules) - known:  # files that the page wrote and imported
            if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text())
    targets = [target for target, _ in _LINK.findall(text) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [page.name for page in PAGES[1:] if page.name not in ("index.md",)] == sorted(
        {target for target, _ in _LINK.findall(index) if target in {p.name for p in PAGES}}
    )


def test_the_tutorial_quotes_the_program_that_it_reads() -> None:
    from lpml.programs import hello

    text = (ROOT / "docs" / "tutorial.md").read_text()
    for part in (hello.Greeter, hello.Guest, hello.program):
        assert inspect.getsource(part) in text


def test_every_name_in_the_list_of_names_is_there() -> None:
    import lpml
    import lpml.agents
    import lpml.nodes
    import lpml.testing.plugin

    text = (ROOT / "docs" / "names.md").read_text()
    of_lpml = re.findall(r"\blpml\.([A-Za-z_]+)", text)
    assert [name for name in of_lpml if not hasattr(lpml, name)] == []
    for module in (lpml.testing, lpml.nodes, lpml.agents):
        section = module.__name__
        part = text.split(f"## {section}\n")[1].split("\n## ")[0]
        names = re.findall(r"`([A-Za-z_]+)[`(]", part)
        assert [name for name in names if not hasattr(module, name)] in ([], ["leak_check"])


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except UsageError as missing:  # an optional package
        pytest.skip(str(missing))
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        out = io.StringIO()
        runner.run(example, out=out.write)
        assert runner.failures == 0, out.getvalue()
