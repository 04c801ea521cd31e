"""The import rules of the house: who may know whom, and where time may be asked for.

`docs/contributing.md` says them in words; here they are read from the source, so that a rule that
is broken names the file and the line.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WINGS = ("nodes", "agents", "programs", "compat")

# The core, floor by floor; what stands on one line does not know each other.
FLOORS = (
    {"errors", "trees", "ending"},
    {"resources", "clock", "service"},
    {"graph", "wire", "record"},
    {"context"},
    {"launchers"},
    {"cli", "testing"},
    {"__main__"},
)
ON_THE_FACE = FLOORS[-2] | FLOORS[-1]  # these may use what users use

# What each wing may not know, besides the wings above it.
ABOVE = {
    "nodes": {"launchers", "cli", "testing", "graph", "agents", "programs", "compat"},
    "agents": {"launchers", "cli", "testing", "programs", "compat"},
    "programs": {"cli", "testing", "compat"},
    "compat": {"cli", "testing", "programs", "agents"},
}

# Optional packages, and the one file that may import each.
OPTIONAL = {
    "cryptography": "lpml/wire/authority.py",
    "ray": "lpml/launchers/ray_engine.py",
    "launchpad": "lpml/launchers/launchpad.py",
    "courier": "lpml/launchers/launchpad.py",
    "reverb": "nodes/replay/reverb.py",
    "gymnasium": "agents/gym.py",
    "envpool": "agents/envpool.py",
    "ale_py": "agents/atari.py",
    "gymnax": "agents/jax_environments/gymnax.py",
    "brax": "agents/jax_environments/brax.py",
    "mujoco_playground": "agents/jax_environments/mjx.py",
    "dm_env": "agents/dm.py",
    "matplotlib": "lpml/record/plot.py",
    "PIL": "agents/pictures.py",
    "tensorboardX": "lpml/record/tensorboard.py",
}

# Faces that load by name; the others only re-export.
LOADING_FACES = {"lpml/launchers/__init__.py", "compat/__init__.py"}


def sources(*folders: str) -> Iterator[Path]:
    """Every source file of these folders of the root; links are not followed."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if not (inside.parts[0] == "lpml" and inside.parts[1] in WINGS):
                yield path


def module_name(path: Path) -> str:
    """The name a user would import: `lpml.nodes.roles` for `nodes/roles.py`."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "lpml" else ["lpml", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sources("lpml", *WINGS)}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every import of a file, late ones and those for types included: module and line."""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                yield (deeper if deeper in MODULES else module), node.lineno


def part(module: str) -> str:
    """The part of lpml that a module belongs to: `graph` of `lpml.graph.node`; "" for the face."""
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


def lpml_imports(*folders: str) -> Iterator[tuple[str, str, str]]:
    """`(place, module, imported)` for each import of lpml in these folders."""
    for path in sources(*folders):
        for imported, line in imports(path):
            if imported.split(".")[0] == "lpml":
                yield f"{path.relative_to(ROOT)}:{line}", module_name(path), imported


def test_the_core_knows_no_wing() -> None:
    wrong = [(place, new) for place, _, new in lpml_imports("lpml") if part(new) in WINGS]
    assert not wrong


def test_the_core_imports_only_downward() -> None:
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    wrong = []
    for place, module, imported in lpml_imports("lpml"):
        old, new = part(module), part(imported)
        if old in ("", new) or (not new and old in ON_THE_FACE):
            continue  # the face, the same part, or a part that stands on the face
        if height.get(new, len(FLOORS)) >= height[old]:
            wrong.append(f"{place} imports {imported}")
    assert not wrong


def test_every_part_of_the_core_has_its_floor() -> None:
    known = set().union(*FLOORS) | set(WINGS) | {""}
    assert {part(name) for name in MODULES} <= known


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_downward(wing: str) -> None:
    wrong = [(place, new) for place, _, new in lpml_imports(wing) if part(new) in ABOVE[wing]]
    assert not wrong


def test_one_agent_never_imports_another() -> None:
    wrong = []
    for place, module, imported in lpml_imports("agents"):
        here, there = agent_of(module), agent_of(imported)
        if here and there and here != there:
            wrong.append(f"{place} imports {imported}")
    assert not wrong


def agent_of(module: str) -> str:
    """The agent that a module belongs to: `dqn` of `lpml.agents.dqn.losses`; "" for none."""
    names = module.split(".")
    deep = names[1:2] == ["agents"] and len(names) > 2
    return names[2] if deep and (ROOT / "agents" / names[2]).is_dir() else ""


def test_nobody_imports_in_a_circle() -> None:
    graph = {name: {new for new, _ in imports(path)} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " imports ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for new in sorted(graph[name] & graph.keys()):
            visit(new, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_an_optional_package_is_imported_in_its_one_file() -> None:
    wrong = []
    for path in sources("lpml", *WINGS):
        inside = path.relative_to(ROOT).as_posix()
        for imported, line in imports(path):
            home = OPTIONAL.get(imported.split(".")[0], inside)
            if home != inside:
                wrong.append(f"{inside}:{line} imports {imported}; its home is {home}")
    assert not wrong


def test_time_is_asked_of_the_clock() -> None:
    wrong = []
    for path in sources("lpml", *WINGS):
        inside = path.relative_to(ROOT).as_posix()
        if inside != "lpml/clock.py":
            wrong += [f"{inside}:{line}" for line in uses_of_time(path)]
    assert not wrong, "ask lpml.context().clock instead"


def uses_of_time(path: Path) -> Iterator[int]:
    """Lines that name `time.sleep` or `time.time`; in a wing, lines that import `time` at all."""
    in_a_wing = path.relative_to(ROOT).parts[0] != "lpml"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("sleep", "time"):
            if isinstance(node.value, ast.Name) and node.value.id == "time":
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            if in_a_wing or {"sleep", "time"} & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Import):
            named = "time" in [alias.name for alias in node.names]
            yield from [node.lineno] if named and in_a_wing else []


def test_faces_only_re_export() -> None:
    wrong = []
    for path in sources("lpml", *WINGS):
        inside = path.relative_to(ROOT).as_posix()
        if path.name == "__init__.py" and inside not in LOADING_FACES:
            body = ast.parse(path.read_text()).body
            wrong += [f"{inside}:{node.lineno}" for node in body if not belongs_in_a_face(node)]
    assert not wrong


def belongs_in_a_face(node: ast.stmt) -> bool:
    """A docstring, an explicit re-export, the guard of a wing, or a dunder such as the version."""
    if isinstance(node, ast.ImportFrom):
        explicit = all(alias.asname == alias.name for alias in node.names)
        return explicit or node.module == "__future__"
    if isinstance(node, ast.If):
        return ast.unparse(node.test).startswith("__name__ != 'lpml.")
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]).startswith("__")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_cannot_be_imported_under_a_second_name(wing: str) -> None:
    if not (ROOT / wing / "__init__.py").exists():
        pytest.skip(f"{wing}/ is still empty")
    ask = [sys.executable, "-c", f"import {wing}"]
    result = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert f"import lpml.{wing}, not {wing}" in result.stderr


def test_importing_lpml_stays_cheap() -> None:
    heavy = ("jax", "numpy", "typer", "rich", "tyro", "tensorboardX", "matplotlib", "asyncio")
    ask = f"import sys, lpml; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", ask]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
