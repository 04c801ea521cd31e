"""The run folder: its paths, and writes that are whole or not at all.

::

    runs/digits-20261128-181530/
      program.json              what was started: the plan
      status.json               how it ended
      logs/worker-0.log         what a node printed
      metrics/worker-0.jsonl    what it logged
      tensorboard/worker/0/     the same for TensorBoard
      curves.png                drawn by `lpml plot`
"""

from __future__ import annotations

import datetime
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lpml.clock import current_clock
from lpml.errors import LaunchError, UsageError, closest


def runs_directory(directory: Path | str | None = None) -> Path:
    """The folder that run folders are made in: `directory`, else `LPML_RUNS`, else `./runs`."""
    return Path(directory or os.environ.get("LPML_RUNS") or "runs").absolute()


def file_stem(node: str) -> str:
    """The name, without its ending, of the files of a node: `worker/0` has `worker-0`."""
    return node.replace("/", "-")


def disk_error(path: Path, error: OSError) -> LaunchError:
    """What to raise where the machine refused to write `path`."""
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return LaunchError(f"{path} cannot be written: there is no folder {path.parent}; make it")
    return LaunchError(
        f"{path} cannot be written: {error.strerror or error}; free some space there, or give "
        "a folder that can be written by --directory or LPML_RUNS"
    )


@final
class RunFolder:
    """The folder of one run, new or old. Holding one touches nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()

    @staticmethod
    def create(program: str, directory: Path | str | None = None) -> RunFolder:
        """Makes the folder of a new run, `<program>-<date>-<time>`, never an existing one.

        Args:
          program: the program's name.
          directory: the folder to make it in; `None` = as `runs_directory`.

        Raises:
          LaunchError: the machine refuses; the message names the folder.
        """
        parent = runs_directory(directory)
        when = datetime.datetime.fromtimestamp(current_clock().wall_time())
        stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', program)}-{when:%Y%m%d-%H%M%S}"
        path, count = parent / stem, 1
        try:
            parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    path.mkdir()
                    break
                except FileExistsError:  # another run of this second
                    count += 1
                    path = parent / f"{stem}-{count}"
            for name in ("logs", "metrics"):
                (path / name).mkdir()
        except OSError as error:
            raise disk_error(path, error) from error
        return RunFolder(path)

    @staticmethod
    def find(text: str, directory: Path | str | None = None) -> RunFolder:
        """The folder of a run that exists.

        Args:
          text: its path, its name, the beginning of its name (the newest such), or `latest`.
          directory: where names are looked up; `None` = as `runs_directory`.

        Raises:
          UsageError: there is none; the message names what there is.
        """
        if _is_run(Path(text)):
            return RunFolder(text)
        parent = runs_directory(directory)
        runs = [folder.path for folder in RunFolder.all(directory)]
        if text in {path.name for path in runs}:
            return RunFolder(parent / text)
        chosen = [path for path in runs if text == "latest" or path.name.startswith(f"{text}-")]
        if chosen:
            return RunFolder(chosen[-1])
        if not runs:
            raise UsageError(
                f"{text}: no such run, and {parent} holds none; start one by `lpml run PROGRAM`, "
                "or say where runs are by --directory"
            )
        names = [path.name for path in runs]
        raise UsageError(f"{text}: no such run in {parent}{closest(text, names[-5:])}")

    @staticmethod
    def all(directory: Path | str | None = None) -> list[RunFolder]:
        """Every run folder of `directory`, the oldest first."""
        parent = runs_directory(directory)
        try:
            found = [path for path in parent.iterdir() if _is_run(path)]
        except OSError:
            return []
        return [RunFolder(path) for path in sorted(found, key=_age)]

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def program_json(self) -> Path:
        """What was started: the plan."""
        return self.path / "program.json"

    @property
    def status_json(self) -> Path:
        """How every node ended."""
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        """The folder of what nodes print."""
        return self.path / "logs"

    @property
    def metrics(self) -> Path:
        """The folder of what nodes log."""
        return self.path / "metrics"

    @property
    def tensorboard(self) -> Path:
        """The folder to give to `tensorboard --logdir`."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of its cuts."""
        return self.path / "checkpoints"

    @property
    def journals(self) -> Path:
        """The folder of what nodes have journaled since a cut."""
        return self.checkpoints / "journal"

    def log_file(self, node: str) -> Path:
        """What a node prints."""
        return self.logs / f"{file_stem(node)}.log"

    def metrics_file(self, node: str) -> Path:
        """What a node logs, as JSON lines."""
        return self.metrics / f"{file_stem(node)}.jsonl"

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """Writes a file as a whole: a reader sees the old content or the new.

        Raises:
          LaunchError: the machine refuses (a full disk, say); the old content is still there.
        """
        text = json.dumps(value, indent=2, default=str) + "\n"
        try:
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        except OSError as error:
            raise disk_error(path, error) from error
        try:
            with open(descriptor, "w") as file:
                file.write(text)
            os.replace(name, path)
        except OSError as error:
            os.unlink(name)
            raise disk_error(path, error) from error

    def read_json(self, path: Path) -> dict[str, Any]:
        """What `write_json` wrote, or `{}` where there is nothing yet."""
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes, as `program.json` has them, else as files of theirs suggest."""
        listed = self.read_json(self.program_json).get("nodes", [])
        if listed:
            return tuple(node["name"] for node in listed)
        stems = {path.stem for path in [*self.logs.glob("*.log"), *self.metrics.glob("*.jsonl")]}
        return tuple(sorted(map(node_of_stem, stems)))


def node_of_stem(stem: str) -> str:
    """The likeliest node of a file: `worker-0` is of `worker/0`."""
    group, dash, index = stem.rpartition("-")
    return f"{group}/{index}" if dash else stem


def _is_run(path: Path) -> bool:
    return (path / "program.json").is_file() or (path / "logs").is_dir()


def _age(path: Path) -> tuple[float, str]:
    try:
        return (path / "logs").stat().st_ctime, path.name
    except OSError:
        return 0.0, path.name
