"""Copies the metrics of a run to TensorBoard event files; the one file that imports tensorboardX.

It is imported at the first row, so a run that logs nothing does not pay for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, final

from lpml.errors import LaunchError
from lpml.record.folder import RunFolder, disk_error
from lpml.record.metrics import MetricsFollower, Row

if TYPE_CHECKING:
    from pathlib import Path


@final
class TensorBoardWriter:
    """The event file of one node. Starts no thread; rows reach the disk at `flush` and `close`."""

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError as error:
            raise LaunchError(
                "TensorBoard event files need tensorboardX: pip install tensorboardX"
            ) from error
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._events: Any = EventsWriter(str(directory / "events"))
        except OSError as error:
            raise disk_error(directory, error) from error

    def write(self, row: Row) -> None:
        """Adds every metric of a row."""
        # Generated code, in which type checkers see no names.
        Event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
        Summary: Any = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in row.metrics.items()
        ]
        event = Event(wall_time=row.time, step=row.step, summary=Summary(value=values))
        self._do(lambda: self._events.write_event(event))

    def flush(self) -> None:
        """Makes what was written visible to TensorBoard."""
        self._do(self._events.flush)

    def close(self) -> None:
        """Flushes and closes."""
        self._do(self._events.close)

    def _do(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            raise disk_error(self._directory, error) from error


@final
class Exporter:
    """Follows the metrics of a run and copies them, one event file per node.

    Owned by one thread. `poll` is cheap where nothing is new.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._follower = MetricsFollower(folder)
        self._writers: dict[str, TensorBoardWriter] = {}

    def poll(self) -> int:
        """Copies what is new and says how many rows that was.

        Raises:
          LaunchError: the disk is full, or tensorboardX is missing.
        """
        rows = self._follower.poll()
        for node, row in rows:
            if node not in self._writers:
                self._writers[node] = TensorBoardWriter(self._folder.tensorboard / node)
            self._writers[node].write(row)
        for node in {node for node, _ in rows}:
            self._writers[node].flush()
        return len(rows)

    def close(self) -> None:
        """Copies the rest and closes the files. Call it when no node logs any more."""
        try:
            self.poll()
        finally:
            writers, self._writers = self._writers, {}
            for writer in writers.values():
                writer.close()
