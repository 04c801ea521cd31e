"""What processes are asked while they run, by any thread: how they are, and where they hang."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, final

from lpml.launchers import system
from lpml.launchers.base import NodeReport
from lpml.launchers.process import NodeProcess


@final
class Questions:
    """Asks processes and waits for their answers, which the launcher's thread brings."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all that follows
        self._reports: dict[str, NodeReport] = {}
        self._silent: set[NodeProcess] = set()  # were asked for reports and have not answered
        self._stacks: dict[int, str] = {}  # {id of the question: answer}
        self._asked = 0

    # Answers.

    def answer(self, process: NodeProcess, message: dict[str, Any]) -> None:
        """A process has sent a `report` or a `stack`."""
        with self._changed:
            if message["what"] == "stack":
                self._stacks[message["id"]] = message["text"]
            else:
                progress = message["progress"]
                self._reports[message["node"]] = NodeReport(
                    message["calls"],
                    message["errors"],
                    message["metrics"],
                    None if progress is None else (progress[0], progress[1]),
                )
                if message["node"] == process.nodes[-1].name:
                    self._silent.discard(process)
            self._changed.notify_all()

    def gone(self, process: NodeProcess) -> None:
        """A process will answer no more."""
        with self._changed:
            self._silent.discard(process)
            self._changed.notify_all()

    # Questions.

    def reports(
        self, processes: Collection[NodeProcess], timeout: float
    ) -> Mapping[str, NodeReport]:
        """What each node says of itself; the last known where it does not answer in time."""
        if timeout > 0:
            for process in processes:
                with self._changed:
                    ask = process.control is not None and process not in self._silent
                    if ask:
                        self._silent.add(process)
                if ask:
                    process.tell({"what": "report"})
            with self._changed:
                self._changed.wait_for(
                    lambda: not any(process in self._silent for process in processes), timeout
                )
        with self._changed:
            return dict(self._reports)

    def stack(
        self, process: NodeProcess, file: Path, do_signal: Callable[[int], None], timeout: float
    ) -> str:
        """The stacks of a process.

        Args:
          process: the process.
          file: where it writes its stacks at a signal.
          do_signal: sends it a signal.
          timeout: seconds.
        """
        with self._changed:
            self._asked += 1
            question = self._asked
        process.tell({"what": "stack", "id": question})
        with self._changed:
            self._changed.wait_for(lambda: question in self._stacks, timeout / 2)
            text = self._stacks.pop(question, None)
        return text if text is not None else self._from_outside(process, file, do_signal, timeout)

    def _from_outside(
        self, process: NodeProcess, file: Path, do_signal: Callable[[int], None], timeout: float
    ) -> str:
        """For a node whose interpreter is stuck: a signal makes it write its stacks to a file."""
        try:
            before = file.stat().st_size
        except OSError:
            before = 0
        do_signal(system.stack_signal())
        end = monotonic() + timeout / 2
        text = ""
        with self._changed:
            while monotonic() < end:
                self._changed.wait(0.05)
                with contextlib.suppress(OSError):
                    text = file.read_bytes()[before:].decode(errors="replace")
                if text and not self._changed.wait(0.05):
                    return text
        return text or f"{process.key} does not answer: {_state(process)}"


def _state(process: NodeProcess) -> str:
    state = system.process_state(process.pid)
    said = {"T": "it is stopped by a signal", "D": "it waits for a device", "": "it is gone"}
    return said.get(state, f"process state {state}")
