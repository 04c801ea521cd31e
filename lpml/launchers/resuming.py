"""Goes on with a run that has ended: its folder made ready for the same program."""

from __future__ import annotations

import shutil
from pathlib import Path

from lpml.errors import UsageError
from lpml.launchers import rendezvous
from lpml.launchers.plan import Plan
from lpml.record.checkpoints import Checkpoint, Checkpoints, latest_of
from lpml.record.folder import RunFolder


def prepare(plan: Plan, path: Path | str) -> tuple[RunFolder, Checkpoint]:
    """The folder, and the cut to go on from; what was logged and journaled after it is undone.

    Unless all nodes with state kept journals: then they redo what came after the cut, and nothing
    is undone. Stateless nodes may be more or fewer than they were.

    Raises:
      UsageError: the run still goes on, or the program has not the stateful nodes of the cut.
      LaunchError: there is no cut, or the folder cannot be written to.
    """
    folder = RunFolder.find(str(path))
    going = [info for info in rendezvous.runs() if Path(info.folder) == folder.path]
    if going:
        raise UsageError(
            f"run {folder.name} still goes on (process {going[0].pid}); "
            f"stop it by `lpml stop {going[0].run}` before you resume it"
        )
    cut = latest_of(folder)
    here = {node.name: node.service for node in plan.nodes if node.stateful}
    there = dict(cut.manifest.nodes)
    if here != there:
        raise UsageError(
            f"run {folder.name} cannot be resumed by this program: its checkpoint has "
            f"{_words(there)}, and the program has {_words(here)}; "
            "give the program, and the arguments, that the run was started with"
        )
    checkpoints = Checkpoints(folder)
    if not checkpoints.are_journaled(cut):
        checkpoints.undo_metrics(cut)
        checkpoints.forget_journals()
    shutil.rmtree(folder.tensorboard, ignore_errors=True)  # made anew from the metrics
    return folder, cut


def _words(nodes: dict[str, str]) -> str:
    return ", ".join(f"{name} ({service})" for name, service in nodes.items()) or "nothing"
