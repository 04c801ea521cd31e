"""What is shipped: the links to the wings, the wheel, the sdist, and what an installation does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WINGS = ("nodes", "agents", "programs", "compat")
SHIPPED = ("lpml", *WINGS, "pyproject.toml", "README.md", "LICENSE")

TWO_NODES = '''
import lpml


class Greeter:
    def greet(self, name: str) -> str:
        return f"good day, {name}"


class Guest:
    def __init__(self, greeter: Greeter) -> None:
        self.greeter = greeter

    def run(self) -> None:
        print(self.greeter.greet("guest"))
        print("lpml is at", lpml.__file__)


def program() -> lpml.Program:
    """A guest is greeted."""
    p = lpml.Program("two")
    greeter = p.add_node(lpml.Node(Greeter))
    p.add_node(lpml.Node(Guest, greeter))
    return p
'''


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints; fails with all of it where the command does."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("wing", WINGS)
def test_each_wing_is_linked_into_the_package(wing: str) -> None:
    link = ROOT / "lpml" / wing
    assert link.is_symlink(), f"lpml/{wing} must be a link; is this a checkout without symlinks?"
    assert os.readlink(link) == f"../{wing}"
    assert (ROOT / wing).is_dir()
    assert not (ROOT / wing).is_symlink()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout, and the wheel built from that sdist."""
    source = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=skip)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, folder=source)
    return out


def shipped_modules() -> set[str]:
    """Every module, by its path inside an installation."""
    core = {path for path in (ROOT / "lpml").rglob("*.py") if path.parent.name not in WINGS}
    wings = {path for wing in WINGS for path in (ROOT / wing).rglob("*.py")}
    inside = {path.relative_to(ROOT).as_posix() for path in core | wings}
    return {name if name.startswith("lpml/") else f"lpml/{name}" for name in inside}


def test_the_wheel_and_the_sdist_hold_every_module_of_every_wing(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert shipped_modules() <= in_wheel
    assert "lpml/py.typed" in in_wheel
    assert shipped_modules() <= in_sdist


def test_nothing_but_lpml_is_installed(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"lpml"}


def test_an_installed_wheel_works_from_another_folder(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, folder=tmp_path)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-index", "--no-deps", wheel, folder=tmp_path)
    # What lpml depends on comes from the outer environment, behind the wheel on the path, so that
    # nothing is downloaded; a .pth in it, such as that of an editable lpml, has no effect here.
    inner = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path
        ).strip()
    )
    (inner / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lpml = venv / "bin" / "lpml"
    assert "digits" in run(lpml, "list", folder=elsewhere)
    assert "run" in run(lpml, "--help", folder=elsewhere)
    (elsewhere / "two.py").write_text(TWO_NODES)
    printed = run(lpml, "run", "two.py", folder=elsewhere)
    assert "good day, guest" in printed
    assert f"lpml is at {inner}" in printed
