"""The log: one JSON object a line on standard error, constant messages, values as fields."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONLines(logging.Formatter):
    """Writes a record as one line of JSON; with several workers, it says whose line it is."""

    def __init__(self, *, worker: int | None = None) -> None:
        super().__init__()
        self._whose = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a field that JSON doesn't know is written as text."""
        fields = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": record.getMessage(),
            "logger": record.name,
            **self._whose,
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write_log(level: str, *, worker: int | None = None) -> None:
    """Send every logger's records to standard error from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines(worker=worker))
    logging.basicConfig(level=level, handlers=[handler], force=True)
