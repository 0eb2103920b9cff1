"""The paths of Glance's image API v1, and what each method of them needs.

Sources, all of Glance 15 (pike-eol), the last release with v1 whose end was planned:
glance/api/v1/router.py, glance/api/middleware/cache_manage.py. A test has those routes written
down, and fails for one without a row.
"""

from __future__ import annotations

from relproxy.filters.route_table import TableRow, rows
from relproxy.model import Access, Treatment

_IMAGES = "/v1/images"
_IMAGE = "/v1/images/{image_id}"
_MEMBERS = f"{_IMAGE}/members"
_BY_ID = Treatment.IMAGE
# What a request says stands in its `x-image-meta-` headers, and its body is an image's data.
_SAID = {"has_effect": True, "is_said_in_headers": True, "moves_data": True}

TABLE: tuple[TableRow, ...] = (
    *rows("GET", "/", "versions", Access.ANYONE, is_version_document=True),
    *rows("GET", "/versions", "versions", Access.ANYONE, is_version_document=True),
    *rows("GET", "/healthcheck", "healthcheck", Access.ADMIN),
    # The root of the version is the list of images, for every method that there is.
    *rows("GET", "/v1", "image-index", Access.CALLER, Treatment.LIST),
    *rows("GET", _IMAGES, "image-index", Access.CALLER, Treatment.LIST),
    *rows("POST", _IMAGES, "image-create", Access.CALLER, Treatment.CREATE, **_SAID),
    *rows("GET", f"{_IMAGES}/detail", "image-list", Access.CALLER, Treatment.LIST),
    *rows("HEAD", _IMAGE, "image-show", Access.VISIBLE, _BY_ID),
    *rows("GET", _IMAGE, "image-download", Access.VISIBLE, _BY_ID, moves_data=True),
    *rows("PUT", _IMAGE, "image-update", Access.OWN, _BY_ID, **_SAID),
    *rows("DELETE", _IMAGE, "image-delete", Access.OWN, _BY_ID),
    # There is no sharing where the registry knows no customers.
    *rows("GET PUT", _MEMBERS, "image-members", Access.REFUSED, _BY_ID),
    *rows("GET PUT DELETE", f"{_MEMBERS}/{{member}}", "image-member", Access.REFUSED, _BY_ID),
    *rows("GET", "/v1/shared-images/{member}", "shared-images", Access.REFUSED),
    *rows("GET DELETE", "/v1/cached_images", "cache", Access.ADMIN),
    *rows("DELETE", "/v1/cached_images/{image_id}", "cache", Access.ADMIN),
    *rows("GET DELETE", "/v1/queued_images", "cache", Access.ADMIN),
    *rows("PUT DELETE", "/v1/queued_images/{image_id}", "cache", Access.ADMIN),
)
