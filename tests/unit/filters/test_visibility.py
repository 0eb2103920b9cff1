from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from relproxy.filters.visibility import ImageFacts, Viewer, is_own, may_see
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
