"""Nova's image service and its client of Glance, whose creates name the instance.

The tuple is two headers of `POST /v2/images` and of no other request: not of the schema that the
client reads before, nor of the member, the update and the upload that follow. Whatever goes wrong
while it is put there is logged, and the create goes on as Nova alone would make it. It is made
once: everything that may fail here comes before it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nova.image import glance

from relproxy.nova.identification import Creation, Naming, current_creation, without_reserved

_LOG = logging.getLogger(__name__)
_CREATE = "/v2/images"


class InstanceAwareGlanceImageService(glance.GlanceImageServiceV2):
    """Nova's own image service, but for what a create says of the instance."""

    def __init__(self, naming: Naming) -> None:
        super().__init__(client=_InstanceAwareClient(naming))

    def create(self, context: Any, image_meta: Any, data: Any = None) -> Any:  # noqa: ANN401
        """Create an image as Nova does, without the reserved properties; return its metadata."""
        made = super().create(context, _cleaned(image_meta), data=data)
        creation = current_creation()
        if creation is not None and not creation.is_named:
            _LOG.warning("image was created without naming its instance")
        return made


class _InstanceAwareClient(glance.GlanceClientWrapper):
    """What Nova calls Glance with: it makes a client of the image API for each call."""

    def __init__(self, naming: Naming) -> None:
        super().__init__()
        self._naming = naming

    def _create_onetime_client(self, context: Any, version: Any) -> Any:  # noqa: ANN401
        client = super()._create_onetime_client(context, version)
        creation = current_creation()
        if creation is not None:
            try:
                headers = self._naming.headers_for(creation.instance)
                client.images.http_client = _NamedCreate(
                    client.images.http_client, headers, creation
                )
            except Exception:  # noqa: BLE001 - Nova goes on, whatever it is
                _LOG.exception("instance of an image can't be named")
        return client


class _NamedCreate:
    """The HTTP client of one create: the POST of the image gets the two headers."""

    def __init__(self, own: Any, headers: Mapping[str, str], creation: Creation) -> None:  # noqa: ANN401
        self._own = own
        self._headers = headers
        self._creation = creation

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._own, name)

    def post(self, url: str, **request: Any) -> Any:  # noqa: ANN401
        """Send a POST: the one that creates an image with the tuple, any other as it is."""
        if url == _CREATE:
            request["headers"] = {**(request.get("headers") or {}), **self._headers}
            self._creation.is_named = True
        return self._own.post(url, **request)


def _cleaned(image_meta: Any) -> Any:  # noqa: ANN401
    try:
        return without_reserved(image_meta)
    except Exception:  # noqa: BLE001 - Nova goes on, whatever it is
        _LOG.exception("reserved properties of an image can't be taken out")
        return image_meta
