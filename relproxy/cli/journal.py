"""`relproxy journal list | settle | adopt | redeliver`: what relproxy can't know by itself.

Works beside a running relproxy, and without one.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from relproxy.admin.journal import shown
from relproxy.cli.verbs import ending
from relproxy.config_file import load_configuration
from relproxy.errors import JournalRefusedError, JournalUnavailableError, RelproxyError
from relproxy.model import CreatedImage
from relproxy.store.base import EntryState
from relproxy.store.journal import check_recordable
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_handover import Handover
from relproxy.store.journal_room import JournalRoom, files_in, open_journal, remove
from relproxy.store.journal_row import NONSENSE, Row, WrongStateError
from relproxy.store.journal_schema import NewerJournalError

_COMPLETED = "completed; a running relproxy delivers it"
# An entry that is on its way between two journals may be missed in both.
_LOOKS = 3
_HEADINGS = ("entry", "state", "kind", "registry", "image_id", "project", "begun_at", "reason")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("journal", help="look after entries that wait for a person")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="print the entries of this host in doubt, or parked")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=ending(_list))
    settling = verbs.add_parser("settle", help="say what became of an entry in doubt, or parked")
    settling.add_argument("entry", metavar="ENTRY", help="as `list` prints it")
    outcome = settling.add_mutually_exclusive_group(required=True)
    outcome.add_argument(
        "--abandoned", action="store_true", help="the registry made nothing: there is no record"
    )
    outcome.add_argument(
        "--created-at", metavar="TIME", help="the registry made the image; its created_at, exactly"
    )
    settling.add_argument("--image", metavar="ID", help="the image's id, if the entry names none")
    settling.add_argument("--project", help="its project, if the entry names none or another")
    settling.set_defaults(run=ending(_settle))
    adopting = verbs.add_parser("adopt", help="take over the journals of a host that is gone")
    adopting.add_argument("directory", type=Path, metavar="DIR")
    adopting.set_defaults(run=ending(_adopt))
    redelivering = verbs.add_parser(
        "redeliver", help="put again into the store what was delivered, after it was restored"
    )
    redelivering.set_defaults(run=ending(_redeliver))
    for verb in (listing, settling, adopting, redelivering):
        verb.add_argument("--config", type=Path, required=True, metavar="FILE")


def _list(arguments: argparse.Namespace) -> str:
    directory = _directory(arguments)
    rows = [shown(row) for path in files_in(directory) for row in _waiting(path)]
    if arguments.json:
        return "\n".join(json.dumps(row) for row in rows)
    told = ["\n".join(f"{name}: {row[name]}" for name in _HEADINGS) for row in rows]
    parked = sum(row["state"] == "parked" for row in rows)
    return "\n\n".join([*told, f"{len(rows) - parked} in doubt, {parked} parked"])


def _waiting(path: Path) -> list[Row]:
    with _opened(path) as file:
        return file.for_a_person()


def _settle(arguments: argparse.Namespace) -> str:
    directory = _directory(arguments)
    for _ in range(_LOOKS):
        copies, moves = _copies(directory, arguments.entry)
        if copies and _is_settled(copies, arguments):
            return "abandoned" if arguments.abandoned else _COMPLETED
        if not copies and not moves:
            break
    raise JournalRefusedError(f"No journal in {directory} has an entry {arguments.entry}.")


def _copies(directory: Path, entry_id: str) -> tuple[list[tuple[Path, Row]], bool]:
    """Return the journals that have an entry, two while it is being adopted; and whether any is."""
    copies: list[tuple[Path, Row]] = []
    moves = False
    for path in files_in(directory):
        if not path.exists():
            moves = True
            continue
        with _opened(path) as file:
            moves = moves or file.is_leaving()
            if (row := file.find(entry_id)) is not None:
                copies.append((path, row))
    return copies, moves


def _is_settled(copies: list[tuple[Path, Row]], arguments: argparse.Namespace) -> bool:
    """Settle an entry; tell whether it was still there."""
    row = max((row for _, row in copies), key=lambda row: row.rank)
    if row.state is not EntryState.IN_DOUBT and not row.is_parked:
        raise JournalRefusedError(f"The entry is not in doubt: it is {row.state.value}.")
    image = None if arguments.abandoned else _image(row, arguments)
    # In each copy: whichever is taken over, it is what the person has said.
    settled = [_is_settled_in(path, row.id, image) for path, _ in copies]
    return any(settled)


def _is_settled_in(path: Path, entry_id: str, image: CreatedImage | None) -> bool:
    with _opened(path) as file:
        (result,) = file.together([lambda: file.settle(entry_id, image, at=datetime.now(UTC))])
    if isinstance(result, Exception) and not isinstance(result, WrongStateError):
        raise _unwritten(result) from result
    return result is None


def _image(row: Row, arguments: argparse.Namespace) -> CreatedImage:
    """Return the image that a person says was made, its owner named."""
    image_id = arguments.image or row.image_id
    project = arguments.project or row.project
    if image_id is None or project is None:
        raise JournalRefusedError("The entry names no image or no project: --image, --project.")
    image = CreatedImage(image_id, arguments.created_at, project)
    check_recordable(image, project)
    return image


def _adopt(arguments: argparse.Namespace) -> str:
    settings = load_configuration(arguments.config).journal
    if not arguments.directory.is_dir():
        raise JournalRefusedError(f"There is no directory {arguments.directory}.")
    if arguments.directory.resolve() == settings.directory.resolve():
        raise JournalRefusedError("That is this host's own: a running relproxy adopts by itself.")
    here = JournalRoom(settings.directory, allow_volatile=settings.allow_volatile)
    there = JournalRoom(arguments.directory, allow_volatile=True)
    ended_after = datetime.now(UTC) - timedelta(seconds=settings.keep_delivered_s)
    taken = 0
    own = here.claim()
    try:
        with closing(open_journal(own)) as file:
            for slot in there.idle():
                with closing(Handover(open_journal(slot), ended_after=ended_after)) as handover:
                    taken += _taken(file, handover)
                remove(slot)
    finally:
        own.release()
    held = len(files_in(arguments.directory))
    said = f"{taken} entries adopted; a running relproxy settles and delivers them"
    if held:
        print(said)
        raise JournalRefusedError(f"{held} journals there are held by a running relproxy.")
    return said


def _taken(file: JournalFile, handover: Handover) -> int:
    taken = 0
    while (page := handover.page()) is not None:
        # To which server it was delivered there says nothing here.
        work = partial(file.adopt, page.rows, page.identity, is_owed=True)
        (result,) = file.together([work])
        if isinstance(result, Exception):
            raise _unwritten(result) from result
        handover.forget(page)
        taken += len(page.rows)
    return taken


def _redeliver(arguments: argparse.Namespace) -> str:
    directory = _directory(arguments)
    again, moves = _put_again(directory)
    if moves:
        # What was on its way between two journals may have been in neither when it was looked at.
        again = max(again, _put_again(directory)[0])
    return f"{again} entries are delivered again by a running relproxy"


def _put_again(directory: Path) -> tuple[int, bool]:
    again = 0
    moves = False
    for path in files_in(directory):
        if not path.exists():
            moves = True
            continue
        with _opened(path) as file:
            moves = moves or file.is_leaving()
            delivered = file.count_delivered()
            (parked,) = file.together([file.put_again])
        if isinstance(parked, Exception):
            raise _unwritten(parked) from parked
        again += delivered + parked
    return again, moves


def _directory(arguments: argparse.Namespace) -> Path:
    directory: Path = load_configuration(arguments.config).journal.directory
    if not directory.is_dir():
        raise JournalRefusedError(f"There is no journal's directory {directory}.")
    return directory


def _unwritten(failure: Exception) -> RelproxyError:
    if isinstance(failure, RelproxyError):
        return failure
    return JournalUnavailableError(f"The journal can't be written: {failure}.")


@contextmanager
def _opened(path: Path) -> Iterator[JournalFile]:
    try:
        file = JournalFile(path)
    except NewerJournalError as failure:
        raise JournalRefusedError(str(failure)) from failure
    except (sqlite3.Error, OSError, *NONSENSE) as failure:
        raise JournalRefusedError(f"The journal {path} can't be opened: {failure}.") from failure
    try:
        yield file
    finally:
        file.close()
