"""Why a project does or does not see an image, as relproxy itself decides it.

The verdict is that of `filters/visibility.py`, on the facts that the flow would have: the image as
the registry shows it to relproxy's own credentials (those that settle creates in doubt), and the
record as the host's journals and the store have it. What could not be learned is said, and what
doesn't hang on it is explained all the same. Nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relproxy.config import Configuration, Registry
from relproxy.errors import (
    BadRequestError,
    NotFoundError,
    RegistryGarbageError,
    RelproxyError,
)
from relproxy.filters.base import Dialect, is_image_id
from relproxy.filters.visibility import ImageFacts, Rule, Viewer, decide, is_own
from relproxy.identity.base import is_admin
from relproxy.messages import Headers
from relproxy.model import Caller, ImageRecord, Ownership, Tenancy
from relproxy.settlement import Asked
from relproxy.store.base import EntryKind, RelationQuery
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_row import Row
from relproxy.store.overlay import Overlay, after

# Records of images that were made under one id, one after the other and in several registries.
_MAX_RECORDS = 1000
# What a registry's answer means that can't be read as an image: nobody is shown that.
_NOTHING = ImageFacts(None, None, None, None)

_SENTENCES: Mapping[Rule, str] = {
    Rule.ADMIN: "One of the roles makes an admin, who sees everything.",
    Rule.PUBLIC: "The image is public: everyone sees it.",
    Rule.OWN_BY_OWNER: "The registry says that the project owns the image.",
    Rule.OWN_BY_RECORD: "The record of this image names the project.",
    Rule.SHARED: "The image is shared: shown where the registry lists it for the caller's own "
    "token. It knows the members, relproxy doesn't.",
    Rule.COMMUNITY_ASKED_FOR: "A community image, and the list asks for those.",
    Rule.COMMUNITY_NOT_ASKED_FOR: "A community image: shown by a list that asks for those "
    "(visibility=community, or all), and by no other.",
    Rule.FOREIGN: "The image isn't public, and belongs to another project.",
    Rule.NO_RECORD: "The image isn't public, and no record says whose it is: only admins see it.",
    Rule.EARLIER_RECORD: "The image isn't public, and the record under its id is of another image, "
    "created at another time: only admins see it.",
    Rule.NOBODY_VOUCHED: "Nobody vouches for a caller, who then sees public images only.",
    Rule.UNREADABLE: "The registry's answer is no image that could be read without doubt: hidden "
    "from everyone.",
}
_AS_LISTED = "One of the roles makes an admin, who sees what the registry lists for it."
_NOT_RELPROXYS = "The registry judges: relproxy passes a request by id on, and the answer back."
_ABSENT = "The registry has no image with this id."
_NOT_SHOWN = "The registry didn't show relproxy the image, so the rule can't be asked."
_HANGS_ON_THE_STORE = (
    "It hangs on the image's record, which can't be read now: meanwhile relproxy answers 503."
)
_AN_ADMINS = "relproxy passes an admin's requests by id on: the registry judges."
_OS_HIDDEN = " It has os_hidden: only a list that asks for os_hidden=true holds it."
_PERHAPS_ABSENT = (
    "The registry shows relproxy no image with this id: there is none, or the credentials that "
    "relproxy asks with may not see it."
)


@dataclass(frozen=True, slots=True)
class Question:
    """Why does `project`, with `roles`, see an image or not? `registry` None asks all of them."""

    project: str
    image_id: str
    roles: frozenset[str] = frozenset()
    registry: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the image is shown, None where that isn't known or isn't relproxy's to say.

    `rule` is None where no part of the rule was asked.
    """

    is_visible: bool | None
    rule: Rule | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Image:
    """What the registry says of the image; `facts` is None where it shows none."""

    facts: ImageFacts | None = None
    particulars: Mapping[str, object] = field(default_factory=dict)
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """One record under the image's id.

    `pending` is what this host's journals still have for it: the record itself, if CREATE is among
    them. `is_of_the_image` says whether the record is of the image that the registry shows now.
    """

    record: ImageRecord
    pending: tuple[EntryKind, ...]
    is_of_the_image: bool | None


@dataclass(frozen=True, slots=True)
class InRegistry:
    """The explanation for one registry.

    On `shadow_routes` nothing is hidden, whatever the answers say. `unknown` has a sentence for all
    that wasn't learned.
    """

    registry: Registry
    in_lists: Answer
    by_id: Answer
    is_own: bool | None
    image: Image
    records: tuple[Remembered, ...]
    in_doubt: tuple[Row, ...]
    shadow_routes: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer to a question."""

    question: Question
    provider: str
    admin_roles: tuple[str, ...]
    is_admin: bool
    registries: tuple[InRegistry, ...]


class Explainer:
    """Explains; see the module."""

    def __init__(
        self,
        configuration: Configuration,
        asked: Mapping[str, Asked],
        journals: HostJournals,
        overlay: Overlay,
    ) -> None:
        self._configuration = configuration
        self._asked = asked
        self._journals = journals
        self._overlay = overlay

    async def explain(self, question: Question) -> Explanation:
        """Answer a question, as far as that is possible.

        Raises `BadRequestError` for what can't be an image's id, or no project, and
        `NotFoundError` for a registry that isn't configured.
        """
        registries = self._registries(question)
        identity = self._configuration.identity
        admin_roles = frozenset(role.lower() for role in identity.admin_roles)
        makes_admin = is_admin(question.roles, admin_roles, is_admin_project=None)
        caller = Caller(question.project, None, question.roles, makes_admin)
        history = await self._history(question.image_id.lower())
        found = await asyncio.gather(
            *(self._in_registry(r, caller, question.image_id, history) for r in registries)
        )
        return Explanation(
            question, identity.provides, identity.admin_roles, makes_admin, tuple(found)
        )

    def _registries(self, question: Question) -> Sequence[Registry]:
        if not is_image_id(question.image_id):
            raise BadRequestError(
                "That is no image's id: it has other characters than letters, digits and '-', or "
                "more than 64."
            )
        if not question.project:
            raise BadRequestError("The project is empty.")
        known = self._configuration.registries
        found = [r for r in known if question.registry in (None, r.name)]
        if not found:
            names = ", ".join(r.name for r in known)
            raise NotFoundError(f"No registry is named '{question.registry}'; known: {names}.")
        return found

    async def _history(self, image_id: str) -> _History:
        """Look up all that is recorded under an id: the journals first, as the flow does."""
        history = _History()
        try:
            history.pending = await self._journals.pending_of_images([image_id])
            doubtful = await self._journals.in_doubt()
            history.in_doubt = [row for row in doubtful if row.image_id == image_id]
        except RelproxyError as failure:
            history.unknown.append(f"What this host's journals have: {failure.sentence}")
        query = RelationQuery(image_id=image_id)
        try:
            page = await self._overlay.relations(query, limit=_MAX_RECORDS, cursor=None)
            history.records = page.records
        except RelproxyError as failure:
            history.unknown.append(f"What the store has: {failure.sentence}")
            changes = [row.change for row in history.pending]
            made = [change for change in changes if isinstance(change, ImageRecord)]
            history.records = [after(record, changes) for record in reversed(made)]
        return history

    async def _in_registry(
        self, registry: Registry, caller: Caller, image_id: str, history: _History
    ) -> InRegistry:
        unknown = list(history.unknown)
        ownership, is_known = await self._ownership(registry.name, image_id.lower())
        image = await self._image(registry.name, image_id, unknown)
        if registry.tenancy is Tenancy.REGISTRY:
            image = await self._with_share(registry.name, caller, image, unknown)
        seen = _Seen(Viewer(registry.tenancy, caller), image, ownership, is_known)
        in_lists = seen.in_lists()
        return InRegistry(
            registry=registry,
            in_lists=in_lists,
            by_id=seen.by_id(in_lists),
            is_own=seen.is_own(),
            image=image,
            records=tuple(history.remembered(registry.name, image)),
            in_doubt=tuple(row for row in history.in_doubt if row.registry == registry.name),
            shadow_routes=self._configuration.shadow_routes(registry.name),
            unknown=tuple(unknown),
        )

    async def _ownership(self, registry: str, image_id: str) -> tuple[Ownership | None, bool]:
        """Return who owns the image by record, and whether that could be learned."""
        try:
            return (await self._overlay.owners(registry, (image_id,))).get(image_id), True
        except RelproxyError:
            return None, False

    async def _image(self, registry: str, image_id: str, unknown: list[str]) -> Image:
        """Ask the registry for the image; what it doesn't tell is added to `unknown`."""
        asked, settings = self._asked[registry], self._configuration
        try:
            async with asyncio.timeout(settings.timeouts.probe_s):
                status, headers, body = await asked.image(
                    image_id, max_bytes=settings.limits.max_page_bytes
                )
        except TimeoutError:
            unknown.append("The image: the registry did not answer in time.")
            return Image()
        except RelproxyError as failure:
            unknown.append(f"The image: {failure.sentence}")
            return Image()
        if status not in {200, 404}:
            unknown.append(f"The image: the registry answers {status} to relproxy's own question.")
        if status != 200:
            return Image(status=status)
        return _image_in(asked.dialect, headers, body)

    async def _with_share(
        self, registry: str, caller: Caller, image: Image, unknown: list[str]
    ) -> Image:
        """Return the image as shared with the project, where only another question tells that."""
        asked, settings = self._asked[registry], self._configuration
        target = asked.dialect.shares_target(caller.project)
        if target is None or image.facts is None or image.facts.visibility != "private":
            return image
        try:
            async with asyncio.timeout(settings.timeouts.probe_s):
                status, _, body = await asked.get(target, max_bytes=settings.limits.max_page_bytes)
            if status == 200 and image.facts.id in asked.dialect.shared_ids(body):
                return replace(image, facts=replace(image.facts, visibility="shared"))
        except (TimeoutError, RelproxyError):
            status = 0
        if status != 200:
            unknown.append("Whether the image is shared with the project: the registry failed.")
        return image


@dataclass(slots=True)
class _History:
    """What is recorded under an image's id, in every registry."""

    records: Sequence[ImageRecord] = ()
    pending: Sequence[Row] = ()
    in_doubt: Sequence[Row] = ()
    unknown: list[str] = field(default_factory=list)

    def remembered(self, registry: str, image: Image) -> Iterator[Remembered]:
        """Yield the records of one registry, newest first."""
        for record in self.records:
            if record.registry == registry:
                yield Remembered(record, tuple(self._pending(record)), _is_of(record, image))

    def _pending(self, record: ImageRecord) -> Iterator[EntryKind]:
        """Yield the kinds of what the store has not taken yet of a record."""
        for row in self.pending:
            # A deletion names no time: it is of the record that was live by then.
            is_its = row.created_at == record.created_at or row.at == record.deleted_at
            if row.registry == record.registry and is_its:
                yield row.kind


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image from one viewer's place, as far as it is known."""

    viewer: Viewer
    image: Image
    ownership: Ownership | None
    is_ownership_known: bool

    def in_lists(self) -> Answer:
        """Ask the rule."""
        if (facts := self.image.facts) is None:
            return self._unseen()
        verdict = decide(self.viewer, facts, self.ownership)
        if verdict.rule is Rule.NO_RECORD and not self.is_ownership_known:
            return Answer(None, None, _HANGS_ON_THE_STORE)
        sentence = _SENTENCES[verdict.rule]
        if verdict.rule is Rule.ADMIN and self.viewer.tenancy is Tenancy.REGISTRY:
            sentence = _AS_LISTED
        if self.image.particulars.get("os_hidden") is True:
            sentence += _OS_HIDDEN
        return Answer(verdict.is_visible, verdict.rule, sentence)

    def by_id(self, in_lists: Answer) -> Answer:
        """Say who judges a request for the image alone, and how, where that is relproxy."""
        if self.viewer.tenancy is Tenancy.REGISTRY:
            return Answer(None, None, _NOT_RELPROXYS)
        if self.viewer.caller is not None and self.viewer.caller.is_admin and self.image.facts:
            return Answer(is_visible=True, rule=Rule.ADMIN, sentence=_AN_ADMINS)
        return replace(in_lists, sentence=in_lists.sentence.removesuffix(_OS_HIDDEN))

    def is_own(self) -> bool | None:
        """Tell whether the project may change the image; None where that isn't known."""
        if self.image.facts is None:
            return None
        is_by_record = self.viewer.tenancy is Tenancy.RELPROXY
        if is_by_record and not self.is_ownership_known:
            return None
        return is_own(self.viewer, self.image.facts, self.ownership)

    def _unseen(self) -> Answer:
        if self.image.status != 404:
            return Answer(None, None, _NOT_SHOWN)
        if self.viewer.tenancy is Tenancy.RELPROXY:
            return Answer(is_visible=False, rule=None, sentence=_ABSENT)
        return Answer(None, None, _PERHAPS_ABSENT)


def _image_in(dialect: Dialect, headers: Headers, body: bytes) -> Image:
    try:
        return Image(dialect.image_facts(headers, body), dialect.particulars(headers, body), 200)
    except RegistryGarbageError:
        return Image(_NOTHING, status=200)


def _is_of(record: ImageRecord, image: Image) -> bool | None:
    if image.facts is None:
        return False if image.status == 404 else None
    return record.created_at == image.facts.created_at
