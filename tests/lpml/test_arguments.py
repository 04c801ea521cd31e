"""How the command line finds a program and makes flags of its factory's signature."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lpml.cli import arguments, explain, factories, quick, running
from lpml.cli.hints import hints
from lpml.cli.main import app, main
from lpml.cli.programs import OWN, Prebuilt, prebuilt, target_of
from lpml.errors import Error, GraphError, UsageError

PROGRAM = """
from __future__ import annotations
import dataclasses
import lpml

@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.1
    \"\"\"of learning\"\"\"
    name: str = "x"

class Service:
    def __init__(self, *what: object) -> None:
        self.what = what

def program(num_workers: int = 2, config: Config = Config(), fast: bool = False) -> lpml.Program:
    \"\"\"Makes a program.

    Args:
      num_workers: how many.
    \"\"\"
    made = lpml.Program("made")
    made.add_node(lpml.Node(Service, num_workers, config.rate, config.name, fast))
    return made
"""


@pytest.fixture(autouse=True)
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is forgotten after it."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("lpml", "tyro", "rich", "numpy", "docstring", "shtab")):
            del sys.modules[name]


def write(text: str, name: str = "program.py") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def given(target: str, *flags: str) -> tuple[object, ...]:
    """The arguments of the only node of the program."""
    (node,) = arguments.build(factories.find(target), flags).nodes
    return tuple(node.node.args)


def test_flags_come_from_the_signature_dataclasses_included() -> None:
    target = write(PROGRAM)
    assert given(target) == (2, 0.1, "x", False)
    assert given(target, "--num-workers", "8", "--config.rate=3", "--fast") == (8, 3.0, "x", True)
    assert given(target, "--num_workers=4", "--no-fast") == (4, 0.1, "x", False)


def test_help_shows_flags_and_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    arguments.print_usage(factories.find(write(PROGRAM)))
    text = capsys.readouterr().out
    for part in (
        "Makes a program.",
        "--num-workers INT",
        "how many.",
        "--config.rate",
        "of learning",
    ):
        assert part in text


def test_an_unknown_flag_is_told_with_the_closest() -> None:
    with pytest.raises(
        arguments.FlagError, match=r"--num-worker: no such flag; did you mean '--num-workers'"
    ):
        given(write(PROGRAM), "--num-worker", "8")


def test_a_value_that_does_not_fit_is_told_with_its_flag() -> None:
    with pytest.raises(arguments.FlagError, match=r"--num-workers: invalid literal.*'many'"):
        given(write(PROGRAM), "--num-workers", "many")


def test_a_parameter_without_default_must_be_given() -> None:
    target = write("import lpml\ndef program(name: str) -> lpml.Program: return lpml.Program(name)")
    assert arguments.build(factories.find(target), ["--name", "n"]).name == "n"
    with pytest.raises(arguments.FlagError, match="--name"):
        arguments.build(factories.find(target), [])


def test_a_parameter_that_cannot_be_a_flag_is_told() -> None:
    target = write("def program(x): pass")
    with pytest.raises(UsageError, match=r"program\.py: no flags.*field x.*annotate each"):
        arguments.build(factories.find(target), ["--x", "1"])


CHECKED = """
import dataclasses, lpml

@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 1
    def __post_init__(self) -> None:
        if self.size < 1:
            raise lpml.UsageError(f"size={self.size}: give at least 1")

def program(config: Config = Config()) -> lpml.Program:
    return lpml.Program("p")
"""


def test_values_that_a_dataclass_refuses_are_told_in_its_own_words() -> None:
    with pytest.raises(UsageError, match=r"^program\.py: size=0: give at least 1$"):
        given(write(CHECKED), "--config.size", "0")


def test_the_module_of_a_file_has_the_name_of_the_file() -> None:
    factory = factories.find(write(PROGRAM, "folder/mine.py"))
    assert factory.function.__module__ == "mine"
    assert sys.path[0] == str(Path("folder").resolve())
    assert factories.find("folder/mine.py").function is factory.function


def test_a_file_may_import_its_neighbours() -> None:
    write("NAME = 'from-neighbour'", "folder/lpml_test_neighbour.py")
    text = "import lpml, lpml_test_neighbour as n\ndef program(): return lpml.Program(n.NAME)"
    made = arguments.build(factories.find(write(text, "folder/mine.py")), [])
    assert made.name == "from-neighbour"


def test_a_file_whose_name_is_no_identifier_travels_by_value() -> None:
    import cloudpickle

    factory = factories.find(write(PROGRAM, "my-program.py"))
    module = factory.function.__module__
    assert module == "_my_program"
    assert module in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.unregister_pickle_by_value(sys.modules[module])


def test_one_function_that_returns_a_program_is_the_factory() -> None:
    text = "from lpml import Program\ndef helper() -> int: ...\ndef make() -> 'Program': ..."
    assert factories.find(write(text)).function.__name__ == "make"


def test_a_function_called_program_comes_before_others() -> None:
    text = "import lpml\ndef other() -> lpml.Program: ...\ndef program(): ..."
    assert factories.find(write(text)).function.__name__ == "program"
    assert factories.find("program.py:other").function.__name__ == "other"


def test_a_factory_imported_from_elsewhere_serves_where_there_is_none() -> None:
    factory = factories.find(write("from lpml.programs.hello import program"))
    assert factory.function.__module__ == "lpml.programs.hello"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (None, "program.py", "or a name that `lpml list` prints"),
        (None, "progam.py", "did you mean 'program.py'"),
        (None, ".", "this is a folder"),
        ("x = 1", "program.txt", "not a Python file"),
        ("x = 1", "program.py", "no function makes a program; write `def program"),
        (
            "import lpml\ndef a() -> lpml.Program: ...\ndef b() -> lpml.Program: ...",
            "program.py",
            "2 functions make a program; give one of program.py:a, program.py:b",
        ),
        ("def program(): ...", "program.py:progam", "did you mean 'program'"),
        ("program = 3", "program.py:program", "a int is no function"),
        (
            "import lpml\np = lpml.Program('p')",
            "program.py",
            "program.py:p: this is a Program; give",
        ),
        (
            "import lpml\np = lpml.Program('p')",
            "program.py:p",
            "this is a Program; give a function",
        ),
        ("x = 1", "json.py", "a module 'json' exists already"),
        ("x = 1", "program", "did you mean program.py"),
        (None, "digit", "did you mean 'digits'"),
        (None, "no.such.module:program", "there is no module 'no'"),
    ],
)
def test_a_target_that_cannot_be_run_is_told_with_the_remedy(
    text: str | None, target: str, message: str
) -> None:
    if text is not None:
        write(text, target.partition(":")[0] if "." in target else "program.py")
    elif target == "progam.py":
        write("x = 1")
    with pytest.raises(UsageError) as caught:
        factories.find(target)
    assert message in str(caught.value)


def test_what_a_file_raises_is_shown_from_its_own_frame_on() -> None:
    with pytest.raises(factories.ProgramFileError) as caught:
        factories.find(write("def f():\n    raise OSError('oh')\nf()"))
    text = explain.explain(caught.value)
    assert text.count("  File ") == 2
    assert "program.py" in text
    assert "OSError: oh" in text
    assert "importlib" not in text


def test_what_a_factory_raises_is_shown_from_its_own_frame_on() -> None:
    with pytest.raises(arguments.FactoryError) as caught:
        arguments.build(factories.find(write("def program(): return 1 / 0")), [])
    text = explain.explain(caught.value)
    assert text.count("  File ") == 1
    assert "ZeroDivisionError" in text
    assert explain.as_dict(caught.value)["type"] == "FactoryError"


def test_a_fault_of_a_graph_is_shown_with_its_line() -> None:
    text = "import lpml\ndef program():\n    return lpml.Program('a b')"
    with pytest.raises(GraphError) as caught:
        arguments.build(factories.find(write(text)), [])
    assert "program.py:3: return lpml.Program('a b')" in explain.explain(caught.value)
    assert explain.as_dict(caught.value)["faults"] == list(caught.value.faults)


def test_a_factory_that_returns_no_program_is_told() -> None:
    with pytest.raises(Error, match=r"program\(\) returned a NoneType; it must return"):
        arguments.build(factories.find(write("def program(): pass")), [])


def test_prebuilt_programs_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path("site/other-1.0.dist-info")
    write("Name: other\nVersion: 1.0\n", f"{package}/METADATA")
    write(
        "[lpml.programs]\ntheirs = lpml_test_other:make\ndigits = lpml_test_other:make\n",
        f"{package}/entry_points.txt",
    )
    write('"""Says what it is.\n\nMore."""\n' + PROGRAM, "site/lpml_test_other.py")
    monkeypatch.syspath_prepend(str(Path("site").resolve()))
    found = prebuilt(summaries=True)
    assert found["theirs"] == Prebuilt(
        "theirs", "lpml_test_other:make", "other", "Says what it is."
    )
    assert found["digits"].package == "lpml"
    assert target_of("theirs") == "lpml_test_other:make"
    assert "lpml_test_other" not in sys.modules
    assert factories.find("theirs:program").function.__name__ == "program"


def test_the_table_of_own_programs_is_what_the_package_declares() -> None:
    tomllib = pytest.importorskip("tomllib")
    file = Path(__file__).resolve().parents[2] / "pyproject.toml"
    declared = tomllib.loads(file.read_text())["project"]["entry-points"]["lpml.programs"]
    assert declared == OWN


def test_every_own_program_says_what_it_is() -> None:
    for program in prebuilt(summaries=True).values():
        if program.package == "lpml":
            assert program.summary, program.name
            assert not program.summary.startswith("(")


def test_hints_follow_neighbours_and_wings_and_no_others() -> None:
    write(
        "import jax, lpml_test_nothing as n\nfrom numpy import array  # comment\nimport os", "a.py"
    )
    write("import a\nimport lpml\n\ndef f():\n    import torch", "b.py")
    assert hints("b.py") == ("jax", "lpml_test_nothing", "numpy")
    assert "optax" in hints("digits")
    assert hints("hello") == ()
    assert hints("no-such") == hints("no.py") == ()


@pytest.mark.parametrize(
    "line",
    [
        "run p.py",
        "run p.py --launch=local_mt --num-workers 8 --directory d --json",
        "run --launch local_mt p.py --stop-timeout=3 --start-timeout 4.5 -q --k=v",
        "run --runs-dir=d p.py:f --plain -- --launch mine --help",
        "run p.py --quiet --k -1",
    ],
)
def test_a_plain_line_is_read_as_typer_reads_it(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def build(factory: object, flags: Sequence[str], others: object) -> str:
        seen.append(tuple(flags))
        return str(factory)

    monkeypatch.setattr(factories, "find", lambda target: target)
    monkeypatch.setattr(arguments, "build", build)
    monkeypatch.setattr(running, "run", lambda *given: seen.append(given))
    with pytest.raises(SystemExit):
        main(line.split())
    flags, given = seen
    read = quick.read(line.split())
    assert read is not None
    target, options = given
    assert (flags, target) == (read.flags, read.target)
    assert options == dataclasses.replace(read.options, command=options.command)
    assert tuple(options.command["flags"]) == flags  # for `lpml resume`


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ps",
        "run",
        "run --help",
        "run p.py -h",
        "run --k=v p.py",
        "run p.py --stop-timeout=soon",
        "run p.py --launch",
        "run -- --k",
    ],
)
def test_a_line_that_is_not_plain_is_left_to_typer(line: str) -> None:
    assert quick.read(line.split()) is None


def test_the_quick_reader_knows_every_flag_of_run() -> None:
    from typer.main import get_command

    command = get_command(app).commands["run"]  # type: ignore[attr-defined]  # it is a group
    declared = {flag for option in command.params for flag in option.opts if flag[:1] == "-"}
    assert declared == {*quick.VALUES, *quick.SWITCHES, "--help", "-h"}
