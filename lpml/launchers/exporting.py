"""Copies metrics to TensorBoard while a run goes on, in a thread that starts with the first row."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import final

from lpml.errors import LaunchError
from lpml.record.folder import RunFolder

_log = logging.getLogger("lpml")
INTERVAL = 2.0  # seconds between two looks


@final
class Exporting:
    """Follows one run folder. Nothing is imported or started before a node has logged."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked_at = float("-inf")

    @property
    def started(self) -> bool:
        """Whether it copies by itself from here on."""
        return self._thread is not None

    def poll(self, now: float) -> None:
        """Starts the thread when there is something to copy."""
        if self._thread is not None or now - self._looked_at < INTERVAL:
            return
        self._looked_at = now
        if self._has_rows():
            self._thread = threading.Thread(target=self._main, name="lpml-export", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Copies the rest. No node logs any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(30.0)
        elif self._has_rows():
            self._main()

    def _has_rows(self) -> bool:
        return any(self._folder.metrics.glob("*.jsonl"))

    def _main(self) -> None:
        from lpml.record.tensorboard import Exporter

        exporter = Exporter(self._folder)
        try:
            while not self._over.wait(INTERVAL):
                exporter.poll()
        except LaunchError as error:  # a full disk; the run goes on without
            _log.warning("%s", error)
        finally:
            with contextlib.suppress(LaunchError):  # said already
                exporter.close()
