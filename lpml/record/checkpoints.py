"""The checkpoints of a run: each one cut through all its stateful nodes, whole or not there.

::

    checkpoints/000003/manifest.json      what it is: program, nodes, attempts, versions
    checkpoints/000003/counter-0.json     the state of a node, as `record.trees` writes it
    checkpoints/.part-000004/             one that was not finished; of no use to anybody
    checkpoints/journal/                  what was acknowledged since: see `record.journal`

A cut is written aside and renamed when everything of it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from lpml.errors import LaunchError
from lpml.record import journal, trees
from lpml.record.folder import RunFolder, disk_error, file_stem

FORMAT = 1
"""Of the files; raised when a new release can no longer be read by an older one."""
_PART = ".part-"


@final
@dataclass(frozen=True)
class Manifest:
    """What is known of a cut without reading its states."""

    number: int
    program: str
    nodes: Mapping[str, str]
    """{stateful node: the name of its service}."""
    attempts: Mapping[str, int]
    """{node: how many times it was started before}, of every node."""
    metrics: Mapping[str, int] = field(default_factory=dict)
    """{node: bytes of its metrics file at the cut}: later rows are of a future that is undone."""
    seconds: float = 0.0
    """For which the program had run, resumed runs included."""
    wall_time: float = 0.0
    """Seconds since 1970."""
    lpml: str = ""
    """The release that wrote it."""
    format: int = FORMAT


@final
class Checkpoint:
    """A whole cut in a run folder."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def stem(self, node: str) -> Path:
        """Where the state of a node is: `lpml.record.trees.load` reads it."""
        return self.path / file_stem(node)

    def load(self, node: str) -> Any:
        """The state of a node, as its `save` returned it.

        Raises:
          UnreadableTree: it is damaged.
        """
        return trees.load(self.stem(node))


@final
class Checkpoints:
    """All cuts of one run.

    Args:
      folder: of the run.
      keep: how many whole cuts are kept, at least 1; the newest ones.
    """

    def __init__(self, folder: RunFolder, keep: int = 2) -> None:
        self._folder = folder
        self._root = folder.checkpoints
        self._keep = max(1, keep)
        self._begun = 0  # the last number given to a cut

    def all(self) -> list[Checkpoint]:
        """The whole cuts, the oldest first; what cannot be read is not among them."""
        found = []
        for path in sorted(self._root.glob("[0-9]*")):
            content = self._folder.read_json(path / "manifest.json")
            if content.get("format", FORMAT + 1) <= FORMAT:
                known = {name: content[name] for name in content if name in _FIELDS}
                with contextlib.suppress(TypeError):
                    found.append(Checkpoint(path, Manifest(**known)))
        return found

    def latest(self) -> Checkpoint | None:
        """The newest whole cut."""
        return max(self.all(), key=lambda cut: cut.manifest.number, default=None)

    def begin(self) -> tuple[int, Path]:
        """A number and an empty folder for a new cut. Removes what was not finished.

        No number is given twice: a cut that was not finished may have begun journals.

        Raises:
          LaunchError: the machine refuses.
        """
        for left in self._root.glob(f"{_PART}*"):
            shutil.rmtree(left, ignore_errors=True)
        numbers = [int(path.name) for path in self._root.glob("[0-9]*") if path.name.isdigit()]
        path = self._folder.journals
        try:
            number = max(*numbers, self._begun, journal.highest(path)) + 1
            path = self._root / f"{_PART}{number:06}"
            path.mkdir(parents=True)
        except OSError as error:
            raise disk_error(path, error) from error
        self._begun = number
        return number, path

    def commit(self, part: Path, manifest: Manifest) -> Checkpoint:
        """The states are all in `part`: makes it a cut, and removes the oldest ones.

        Raises:
          LaunchError: the machine refuses; there is no such cut then.
        """
        self._folder.write_json(part / "manifest.json", asdict(manifest))
        path = self._root / f"{manifest.number:06}"
        try:
            _sync(part / "manifest.json")
            _sync(part)
            os.rename(part, path)
            _sync(self._root)
        except OSError as error:
            raise disk_error(path, error) from error
        cuts = self.all()
        for old in cuts[: -self._keep]:
            shutil.rmtree(old.path, ignore_errors=True)
        kept = [cut.manifest.number for cut in cuts[-self._keep :]]
        journal.prune(self._folder.journals, min(kept, default=0))
        return Checkpoint(path, manifest)

    def abandon(self, part: Path) -> None:
        """Removes a cut that will not be finished."""
        shutil.rmtree(part, ignore_errors=True)

    def are_journaled(self, cut: Checkpoint) -> bool:
        """Whether all states of a cut have journals from there on, so that nothing is lost."""
        stems = journal.begun(self._folder.journals, cut.manifest.number)
        return all(file_stem(node) in stems for node in cut.manifest.nodes)

    def forget_journals(self) -> None:
        """The run is set back to a cut: nobody will redo what came after it.

        Raises:
          LaunchError: the machine refuses.
        """
        journal.drop(self._folder.journals)

    def metrics_sizes(self) -> dict[str, int]:
        """{node: bytes that it has logged so far}."""
        sizes = {}
        for node in self._folder.nodes:
            with contextlib.suppress(OSError):
                sizes[node] = self._folder.metrics_file(node).stat().st_size
        return sizes

    def undo_metrics(self, cut: Checkpoint) -> None:
        """Removes what nodes have logged since a cut, so that no curve has a point twice."""
        for node in self._folder.nodes:
            path = self._folder.metrics_file(node)
            try:
                if path.stat().st_size > cut.manifest.metrics.get(node, 0):
                    os.truncate(path, cut.manifest.metrics.get(node, 0))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise disk_error(path, error) from error


def number_of(stem: Path | str) -> int:
    """The number of the cut that a state is of, by `Checkpoint.stem`; 0 for ""."""
    name = Path(stem).parent.name
    return int(name) if name else 0


_FIELDS = frozenset(Manifest.__dataclass_fields__)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def latest_of(folder: RunFolder) -> Checkpoint:
    """The newest whole cut of a run.

    Raises:
      LaunchError: there is none.
    """
    found = Checkpoints(folder).latest()
    if found is None:
        raise LaunchError(
            f"run {folder.name} has no checkpoint to go on from; run programs with "
            "--checkpoint-every SECONDS to have some"
        )
    return found
