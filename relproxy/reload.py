"""Reloading the configuration while requests are served: all of it is taken, or nothing.

A new file is read and checked, its addresses are bound (one that stays keeps its socket), and who
shall serve it begins beside those who serve the old one. Only once the new ones serve are the old
ones retired. Whatever goes wrong before, the old ones have never stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from relproxy.certificates import certificate_warnings, read_proofs
from relproxy.config import Configuration
from relproxy.config_file import parse_configuration, read_text
from relproxy.config_warnings import warnings
from relproxy.errors import ConfigurationError, RelproxyError
from relproxy.metrics import Metrics
from relproxy.sockets import Bound, Sockets
from relproxy.systemd import Herald

_LOG = logging.getLogger(__name__)

# Serves a configuration, given its text and its sockets, instead of what is served now.
Replace = Callable[[Configuration, str, Sockets], Awaitable[None]]


class Reloads:
    """Reads one file anew when asked to."""

    def __init__(
        self,
        file: Path,
        configuration: Configuration,
        bound: Bound,
        metrics: Metrics,
        herald: Herald,
    ) -> None:
        """Begin with a configuration that was taken, and the sockets that are bound for it."""
        self.bound = bound
        self._file = file
        self._configuration = configuration
        self._metrics = metrics
        self._herald = herald
        self._asked = asyncio.Event()
        self._say_taken()

    def ask(self) -> None:
        """Have the file read; asked while it is read, it is read once more."""
        self._asked.set()

    async def run(self, replace: Replace) -> None:
        """Reload when asked to, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload(replace)

    async def reload(self, replace: Replace) -> None:
        """Take the file as it is now, or say why not; raises nothing."""
        self._herald.reloading()
        try:
            await self._take(replace)
        except RelproxyError as failure:
            self._say_refused(failure.sentence)
        except Exception as failure:  # noqa: BLE001 - the top of a loop
            # What serves goes on, whatever is wrong with what would follow it.
            self._say_refused(type(failure).__name__, failure)
        else:
            self._metrics.config_reloads.labels("taken").inc()
            self._say_taken()
            _LOG.info("configuration reloaded", extra={"path": str(self._file)})
            self._herald.ready("Serving; the configuration was reloaded.")

    async def _take(self, replace: Replace) -> None:
        text = await asyncio.to_thread(read_text, self._file)
        configuration = parse_configuration(text, str(self._file))
        # Files may be on a disk that hangs.
        proofs = await asyncio.to_thread(read_proofs, configuration)
        _check_stays(self._configuration, configuration)
        bound = self.bound.following(configuration, proofs)
        try:
            await replace(configuration, text, bound.sockets)
        except BaseException:
            bound.sockets.close()
            bound.remove_files(self.bound)
            raise
        self.bound.sockets.close()
        self.bound.remove_files(bound)
        bound.set_modes()
        self.bound, self._configuration = bound, configuration

    def _say_taken(self) -> None:
        of_files = certificate_warnings(self.bound.sockets.proofs)
        for warning in (*warnings(self._configuration), *of_files):
            _LOG.warning("configuration", extra={"reason": warning})
        self._metrics.config_reload_successful.set(1)
        self._metrics.config_reload_success.set_to_current_time()

    def _say_refused(self, reason: str, bug: Exception | None = None) -> None:
        self._metrics.config_reloads.labels("refused").inc()
        self._metrics.config_reload_successful.set(0)
        told = {"path": str(self._file), "reason": reason}
        _LOG.error("reload refused", extra=told, exc_info=bug)
        self._herald.ready(f"Serving; the reload was refused: {reason}")


def _check_stays(old: Configuration, new: Configuration) -> None:
    """Raise `ConfigurationError` where two would remember in different places at the same time."""
    problems = [
        f"{setting} can't change in a reload, because the old and the new one would know different "
        "records: stop relproxy, then start it."
        for setting, was, is_now in (
            ("journal.directory", old.journal.directory, new.journal.directory),
            ("store.driver", old.store.driver, new.store.driver),
            ("store.path", old.store.path, new.store.path),
            ("store.dsn", old.store.dsn, new.store.dsn),
        )
        if was != is_now
    ]
    if problems:
        raise ConfigurationError(tuple(problems))
