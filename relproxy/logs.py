"""The log: one JSON object a line on standard error, constant messages, values as fields.

The line of a request (see `relproxy.account`) has its fields for a message: there is one for each
request, so it is one mapping and one dump.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# Told whatever the level of the log, which is about what goes wrong.
_ACCESS = logging.getLogger("relproxy.access")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONLines(logging.Formatter):
    """Writes a record as one line of JSON; with several workers, it says whose line it is."""

    def __init__(self, *, worker: int | None = None) -> None:
        super().__init__()
        self._whose = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a field that JSON doesn't know is written as text."""
        said = record.msg if isinstance(record.msg, dict) else None
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": record.getMessage() if said is None else "request",
            "logger": record.name,
            **self._whose,
            **(_fields(record) if said is None else said),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD}


def tell_request(account: dict[str, object]) -> None:
    """Write the line of a request that is over."""
    _ACCESS.handle(logging.LogRecord(_ACCESS.name, logging.INFO, __file__, 0, account, None, None))


def write_log(level: str, *, worker: int | None = None) -> None:
    """Send every logger's records to standard error from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines(worker=worker))
    logging.basicConfig(level=level, handlers=[handler], force=True)
