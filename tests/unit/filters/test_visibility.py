from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from relproxy.filters.visibility import (
    ImageFacts,
    Rule,
    Verdict,
    Viewer,
    decide,
    is_own,
    may_see,
)
from relproxy.model import Caller, Ownership, Tenancy

CREATED = "2026-11-22T15:07:26Z"
EARLIER = "2025-01-01T00:00:00Z"

CALLERS = {
    "nobody": None,
    "a member": Caller("mine", roles=frozenset({"member"})),
    "an admin": Caller("ours", roles=frozenset({"admin"}), is_admin=True),
}
RECORDS = {
    "no record": None,
    "a record of mine": Ownership("mine", CREATED),
    "a record of theirs": Ownership("theirs", CREATED),
    "my record of a deleted image": Ownership("mine", EARLIER),
}
OWNERS = {"no owner": None, "owned by me": "mine", "owned by them": "theirs"}
VISIBILITIES = ("public", "community", "shared", "private", None, "something new")


def expected(
    tenancy: Tenancy,
    caller: str,
    record: str,
    owner: str,
    visibility: str | None,
    *,
    asks_for_community: bool,
) -> bool:
    """Return what DESIGN section 4 says, in its own order."""
    if visibility is None:
        return False
    if caller == "an admin" or visibility == "public":
        return True
    if caller == "nobody":
        return False
    if tenancy is Tenancy.RELPROXY:
        return record == "a record of mine"
    is_listed = visibility == "shared" or (visibility == "community" and asks_for_community)
    return owner == "owned by me" or is_listed


def every_case() -> Iterator[object]:
    for tenancy, caller, record, owner, visibility, asks in itertools.product(
        Tenancy, CALLERS, RECORDS, OWNERS, VISIBILITIES, (False, True)
    ):
        asking = ", asking for community" if asks else ""
        yield pytest.param(
            tenancy,
            caller,
            record,
            owner,
            visibility,
            asks,
            id=f"tenancy {tenancy}: {caller}{asking}: {visibility}, {owner}, {record}",
        )


@pytest.mark.parametrize(
    ("tenancy", "caller", "record", "owner", "visibility", "asks_for_community"), list(every_case())
)
def test_the_rule_says_what_the_contract_says(
    tenancy: Tenancy,
    caller: str,
    record: str,
    owner: str,
    visibility: str | None,
    *,
    asks_for_community: bool,
) -> None:
    viewer = Viewer(tenancy, CALLERS[caller], asks_for_community=asks_for_community)
    image = ImageFacts("i1", OWNERS[owner], visibility, CREATED)

    assert may_see(viewer, image, RECORDS[record]) is expected(
        tenancy, caller, record, owner, visibility, asks_for_community=asks_for_community
    )


@pytest.mark.parametrize("tenancy", list(Tenancy))
@pytest.mark.parametrize("caller", list(CALLERS))
def test_an_image_without_an_id_is_hidden_from_everyone(tenancy: Tenancy, caller: str) -> None:
    image = ImageFacts(None, "mine", "public", CREATED)

    assert not may_see(Viewer(tenancy, CALLERS[caller]), image, Ownership("mine", CREATED))


def test_a_record_wins_over_the_owner_where_relproxy_is_the_only_wall() -> None:
    viewer = Viewer(Tenancy.RELPROXY, Caller("mine"))
    image = ImageFacts("i1", "mine", "private", CREATED)

    assert not is_own(viewer, image, None)
    assert not is_own(viewer, image, Ownership("theirs", CREATED))
    assert is_own(viewer, image, Ownership("mine", CREATED))


def test_the_owner_wins_over_a_record_where_the_registry_knows_owners() -> None:
    viewer = Viewer(Tenancy.REGISTRY, Caller("mine"))

    assert not is_own(
        viewer, ImageFacts("i1", "theirs", "private", CREATED), RECORDS["a record of mine"]
    )
    assert is_own(
        viewer, ImageFacts("i1", "mine", "private", CREATED), RECORDS["a record of theirs"]
    )


def test_a_public_image_is_not_its_viewers_own() -> None:
    for tenancy in Tenancy:
        image = ImageFacts("i1", "theirs", "public", CREATED)
        assert not is_own(Viewer(tenancy, Caller("mine")), image, Ownership("theirs", CREATED))


def test_nothing_belongs_to_nobody() -> None:
    for tenancy in Tenancy:
        image = ImageFacts("i1", None, "public", CREATED)
        assert not is_own(Viewer(tenancy, None), image, Ownership("mine", CREATED))


def test_an_admin_owns_no_more_than_its_project_does() -> None:
    viewer = Viewer(Tenancy.RELPROXY, CALLERS["an admin"])
    image = ImageFacts("i1", None, "private", CREATED)

    assert not is_own(viewer, image, Ownership("theirs", CREATED))


def test_a_record_without_a_time_owns_no_image_without_one() -> None:
    viewer = Viewer(Tenancy.RELPROXY, Caller("mine"))

    assert not is_own(viewer, ImageFacts("i1", None, "private", None), Ownership("mine", CREATED))


def test_a_project_is_compared_to_the_letter() -> None:
    viewer = Viewer(Tenancy.RELPROXY, Caller("MINE"))
    image = ImageFacts("i1", None, "private", CREATED)

    assert not may_see(viewer, image, Ownership("mine", CREATED))


NOBODY, MEMBER, ADMIN = CALLERS.values()
OURS, THEIRS = Tenancy.RELPROXY, Tenancy.REGISTRY


@pytest.mark.parametrize(
    ("tenancy", "caller", "visibility", "owner", "record", "rule", "is_visible"),
    [
        (OURS, ADMIN, "private", None, "no record", Rule.ADMIN, True),
        (THEIRS, ADMIN, "private", "theirs", "no record", Rule.ADMIN, True),
        (OURS, MEMBER, "public", None, "no record", Rule.PUBLIC, True),
        (THEIRS, NOBODY, "public", "theirs", "no record", Rule.PUBLIC, True),
        (THEIRS, MEMBER, "private", "mine", "no record", Rule.OWN_BY_OWNER, True),
        (THEIRS, MEMBER, "community", "mine", "no record", Rule.OWN_BY_OWNER, True),
        (OURS, MEMBER, "private", "theirs", "a record of mine", Rule.OWN_BY_RECORD, True),
        (THEIRS, MEMBER, "shared", "theirs", "no record", Rule.SHARED, True),
        (THEIRS, MEMBER, "community", "theirs", "no record", Rule.COMMUNITY_NOT_ASKED_FOR, False),
        (THEIRS, MEMBER, "private", "theirs", "a record of mine", Rule.FOREIGN, False),
        (THEIRS, MEMBER, "something new", "theirs", "no record", Rule.FOREIGN, False),
        (OURS, MEMBER, "shared", "mine", "a record of theirs", Rule.FOREIGN, False),
        (OURS, MEMBER, "community", "mine", "no record", Rule.NO_RECORD, False),
        (
            *(OURS, MEMBER, "private", "mine", "my record of a deleted image"),
            *(Rule.EARLIER_RECORD, False),
        ),
        (THEIRS, NOBODY, "shared", None, "no record", Rule.NOBODY_VOUCHED, False),
        (OURS, NOBODY, "private", None, "a record of mine", Rule.NOBODY_VOUCHED, False),
        (OURS, ADMIN, None, None, "a record of mine", Rule.UNREADABLE, False),
    ],
)
def test_a_verdict_names_the_part_of_the_rule_that_decided(
    tenancy: Tenancy,
    caller: Caller | None,
    visibility: str | None,
    owner: str | None,
    record: str,
    rule: Rule,
    *,
    is_visible: bool,
) -> None:
    image = ImageFacts("i1", owner, visibility, CREATED)

    assert decide(Viewer(tenancy, caller), image, RECORDS[record]) == Verdict(is_visible, rule)


def test_community_images_are_shown_to_who_asks_for_them() -> None:
    image = ImageFacts("i1", "theirs", "community", CREATED)
    verdict = decide(Viewer(THEIRS, MEMBER, asks_for_community=True), image, None)

    assert verdict == Verdict(is_visible=True, rule=Rule.COMMUNITY_ASKED_FOR)


def every_verdict() -> Iterator[tuple[bool, bool, Verdict]]:
    """Yield what each of the three functions says, for every case there is."""
    for tenancy, caller, record, owner, visibility, asks, image_id in itertools.product(
        Tenancy,
        CALLERS.values(),
        RECORDS.values(),
        OWNERS.values(),
        VISIBILITIES,
        (False, True),
        ("i1", None),
    ):
        viewer = Viewer(tenancy, caller, asks_for_community=asks)
        image = ImageFacts(image_id, owner, visibility, CREATED)
        asked = (viewer, image, record)
        yield may_see(*asked), is_own(*asked), decide(*asked)


def test_whoever_may_see_is_who_the_verdict_shows_it_to() -> None:
    assert all(sees is verdict.is_visible for sees, _, verdict in every_verdict())


def test_a_verdict_that_names_an_owner_is_of_an_own_image() -> None:
    own = {Rule.OWN_BY_OWNER, Rule.OWN_BY_RECORD}

    assert all(is_it for _, is_it, verdict in every_verdict() if verdict.rule in own)


def test_every_part_of_the_rule_decides_something() -> None:
    assert {verdict.rule for _, _, verdict in every_verdict()} == set(Rule)
