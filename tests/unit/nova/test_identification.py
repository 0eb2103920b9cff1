from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from relproxy.errors import BadRequestError
from relproxy.filters.capture import checked_instance_id
from relproxy.nova.identification import (
    INSTALLATION_HEADER,
    INSTANCE_HEADER,
    creating,
    current_creation,
    naming,
    without_reserved,
)

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"


def test_the_two_headers_name_the_installation_and_the_instance() -> None:
    named = naming(EAST.upper(), INSTALLATION_HEADER, INSTANCE_HEADER)
    assert named.headers_for(SimpleNamespace(uuid="i-1")) == {
        "X-Nova-Installation-UUID": EAST,
        "X-Nova-Instance-ID": "i-1",
    }


@pytest.mark.parametrize(
    "instance_id", ["", "i 1", "i\r\nX-Project-Id: bob", "é", "i" * 256, None, 7, b"i-1"]
)
def test_an_id_that_relproxy_would_refuse_is_not_sent(instance_id: object) -> None:
    with pytest.raises(BadRequestError):
        checked_instance_id(instance_id, "instance_id")
    with pytest.raises(ValueError, match="visible ASCII"):
        naming(EAST, "A", "B").headers_for(SimpleNamespace(uuid=instance_id))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("123", "A", "B"), "no UUID"),
        (("", "A", "B"), "no UUID"),
        ((EAST, "X Nova", "B"), "'X Nova' can't be the name of a header"),
        ((EAST, "A", "B:"), "'B:' can't be the name of a header"),
        ((EAST, "", "B"), "'' can't be the name of a header"),
        ((EAST, "X-Nova", "x-nova"), "one name"),
    ],
)
def test_what_cannot_be_sent_is_said_in_a_sentence(values: tuple[str, str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        naming(*values)


def test_an_instance_is_known_during_its_create_and_not_after() -> None:
    assert current_creation() is None
    with creating("an instance") as creation:
        assert current_creation() is creation
        with creating(None):
            assert current_creation() is None
        assert current_creation() is creation
    assert current_creation() is None


def test_an_instance_is_forgotten_when_its_create_fails() -> None:
    with pytest.raises(RuntimeError), creating("an instance"):
        raise RuntimeError
    assert current_creation() is None


def test_another_thread_that_creates_meanwhile_names_nothing_of_ours() -> None:
    seen: list[object] = []
    with creating("an instance"):
        thread = threading.Thread(target=lambda: seen.append(current_creation()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_reserved_properties_are_taken_out_and_nothing_else_is() -> None:
    properties = {"instance_id": "1", "nova_installation_uuid": EAST, "instance_uuid": "i", "a": 1}
    image_meta = {"name": "instance_id", "properties": properties, "instance_id": "top"}
    assert without_reserved(image_meta) == {
        "name": "instance_id",
        "properties": {"instance_uuid": "i", "a": 1},
        "instance_id": "top",
    }
    # What Nova itself holds is as it was.
    assert len(properties) == 4


def test_an_image_without_properties_is_as_it_was() -> None:
    assert without_reserved({"name": "a"}) == {"name": "a"}
