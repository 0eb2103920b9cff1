from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from relproxy.errors import KeystoneUnavailableError
from relproxy.identity import token as module
from relproxy.identity.token import Token
from relproxy.model import AccessRule

ENDS = "2026-11-24T22:00:00.000000Z"


def token(**members: Any) -> dict[str, Any]:
    """Return a token of a project as Keystone 30 shows it, less what relproxy never reads."""
    return {
        "methods": ["password"],
        "user": {"domain": {"id": "default", "name": "Default"}, "id": "u1", "name": "alice"},
        "expires_at": ENDS,
        "issued_at": "2026-11-24T21:00:00.000000Z",
        "project": {"domain": {"id": "d2", "name": "Two"}, "id": "p1", "name": "alice"},
        "is_domain": False,
        "roles": [{"id": "1", "name": "member"}, {"id": "2", "name": "reader"}],
        **members,
    }


def read_token(body: bytes) -> Token:
    return module.read_token(body, service_type="image")


def shown(**members: Any) -> bytes:
    return json.dumps({"token": token(**members)}).encode()


def test_a_token_of_a_project_is_read() -> None:
    found = read_token(shown())

    assert (found.user, found.user_domain) == ("u1", "default")
    assert (found.project, found.project_domain) == ("p1", "d2")
    assert found.roles == {"member", "reader"}
    assert found.expires_at == datetime(2026, 11, 24, 22, tzinfo=UTC)
    assert (found.is_admin_project, found.access_rules, found.is_bound) == (None, None, False)


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({}, id="unscoped"),
        pytest.param({"domain": {"id": "default", "name": "Default"}}, id="of a domain"),
        pytest.param({"system": {"all": True}}, id="of the system"),
        pytest.param({"project": None}, id="a project that is null"),
    ],
)
def test_a_token_of_no_project_has_none(scope: dict[str, Any]) -> None:
    document = token(**scope)
    if document["project"] is not None:
        del document["project"]

    assert read_token(json.dumps({"token": document}).encode()).project is None


def test_a_role_whose_name_is_a_list_is_not_taken_for_several() -> None:
    names = ["member,admin", "a\nb", "", " admin", "admin ", "r\u00f4le", "cloud admin"]

    assert read_token(shown(roles=[{"name": name} for name in names])).roles == {"cloud admin"}


def test_access_rules_are_read_and_an_empty_list_is_not_none() -> None:
    rule = {"id": "1", "service": "image", "method": "GET", "path": "/v2/images"}
    for given, expected in (
        ([rule], (AccessRule("image", "GET", "/v2/images"),)),
        ([], ()),
        (None, None),
    ):
        application = {"id": "a", "name": "n", "restricted": True, "access_rules": given}
        assert read_token(shown(application_credential=application)).access_rules == expected
    assert read_token(shown(application_credential={"id": "a"})).access_rules is None


def test_of_access_rules_only_those_for_this_service_are_remembered_and_no_more_than_a_few() -> (
    None
):
    """What is remembered of a token is made by its owner."""

    def rules(count: int, **odd: str) -> Any:
        made = {"service": "image", "method": "GET", "path": "/v2/images"}
        given = [made | odd for _ in range(count)]
        return read_token(shown(application_credential={"access_rules": given})).access_rules

    assert len(rules(200)) == 200
    assert rules(201) == ()
    assert rules(200, service="compute") == ()
    assert rules(1, path="/" + "x" * 128) == ()
    assert rules(1, method="M" * 17) == ()


@pytest.mark.parametrize("odd", ["j\u00fcrgen", "\u674e", "a\r\nX-Roles: admin", "", "x" * 256])
def test_an_id_that_no_header_could_carry_is_left_out(odd: str) -> None:
    found = read_token(
        shown(user={"id": odd, "domain": {"id": odd}}, project={"id": "p", "domain": {"id": odd}})
    )

    assert (found.user, found.user_domain, found.project_domain) == (None, None, None)
    assert found.project == "p"


def test_a_token_that_is_bound_to_a_client_says_so() -> None:
    assert read_token(shown(bind={"kerberos": "alice"})).is_bound
    assert not read_token(shown(bind={})).is_bound


@pytest.mark.parametrize("says", [True, False])
def test_a_token_says_whether_its_project_is_the_admins(*, says: bool) -> None:
    assert read_token(shown(is_admin_project=says)).is_admin_project is says


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"{}", id="no token"),
        pytest.param(b'{"token": null}', id="null"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(shown(user={"name": "alice"}), id="a user without an id"),
        pytest.param(shown(user={"id": 7}), id="a user whose id is a number"),
        pytest.param(shown(project={"name": "x"}), id="a project without an id"),
        pytest.param(shown(project="p1"), id="a project that is a text"),
        pytest.param(shown(roles=[{"id": "1"}]), id="a role without a name"),
        pytest.param(shown(roles="admin"), id="roles that are a text"),
        pytest.param(shown(expires_at="soon"), id="an end that is no time"),
        pytest.param(shown(expires_at=None), id="no end"),
        pytest.param(shown(is_admin_project="yes"), id="a text for a truth"),
        pytest.param(
            shown(application_credential={"access_rules": [{"path": "/"}]}), id="half a rule"
        ),
        pytest.param(shown()[:-1], id="cut off"),
        pytest.param(b"\xff" + shown(), id="not UTF-8"),
    ],
)
def test_what_is_not_about_a_token_is_not_believed(body: bytes) -> None:
    with pytest.raises(KeystoneUnavailableError, match="can't be understood"):
        read_token(body)
