"""Moves committed pages from SQLite's write-ahead log into the database file, so that no commit has to wait for it.

See https://sqlite.org/wal.html#checkpointing. A PASSIVE checkpoint waits for nobody and keeps nobody waiting.
"""

import sqlite3
import threading
from pathlib import Path

from chartwire.telemetry import get_logger

_INTERVAL_SECONDS = 0.25


class Checkpointer:
    """A thread with a connection of its own: soon after a commit it checkpoints; without commits it rests.

    What it has not come to when the log is full is left to the writer, and whoever commits waits for that: so often it
    is little.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._committed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chartwire-checkpoint", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was committed."""
        if not self._committed.is_set():  # to tell it again what it knows would take longer than to look
            self._committed.set()

    def close(self) -> None:
        """End the thread. What it has not moved is moved when the last connection closes."""
        self._closing.set()
        self._committed.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._committed.wait()
            self._committed.clear()
            if not self._closing.wait(_INTERVAL_SECONDS):
                self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        except sqlite3.Error:  # a full disk, say: the writer meets it too and tells its callers
            get_logger().exception("checkpoint failed")
