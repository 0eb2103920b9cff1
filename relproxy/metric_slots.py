"""Where the values of metrics are kept if several workers count together.

They share a directory, in which each has files of its own, and whoever is scraped sums
them up. The files are those of a slot, not of a process: a worker that follows a dead one counts on
from where that ended, so that no counter ever goes down and no file is left over.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

# The client library's own: where it is set, the values of this process are kept there.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def count_in_slot(slot: int) -> None:
    """Keep this worker's values in its slot's files; to be called before any `Metrics` is made."""
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


# The slot of who starts the workers: no worker has it.
SUPERVISOR_SLOT = 1_000_000


def forget_gauges(slot: int, directory: Path) -> None:
    """Drop what a dead worker said of its own present; what it counted stays."""
    mark_process_dead(slot, str(directory))  # type: ignore[no-untyped-call]
