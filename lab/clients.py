"""Real clients of the image API, as one project or one project's Nova uses them."""

from __future__ import annotations

from collections.abc import Mapping

from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session
from openstack.connection import Connection


def connect(
    url: str,
    project: str,
    *,
    roles: str = "member,reader",
    headers: Mapping[str, str] | None = None,
) -> Connection:
    """Return an openstacksdk connection whose front vouches for `project`.

    `headers` go with every request that the client makes, as a Nova's would.
    """
    told = {"X-Project-Id": project, "X-Roles": roles, **(headers or {})}
    session = Session(auth=NoAuth(endpoint=url), additional_headers=told)
    return Connection(
        session=session, image_endpoint_override=url, image_api_version="2", compute_api_version="2"
    )


def metadata_headers(installation: str, instance_id: str) -> dict[str, str]:
    """Return what an instance-aware Nova sends along."""
    return {"X-Nova-Installation-UUID": installation, "X-Nova-Instance-ID": instance_id}
