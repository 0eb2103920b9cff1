"""The paths of glance-registry as of 2011, and what each method of them needs.

Source: glance/registry/server.py of Glance 2011.3 (diablo). Its router makes more of them than it
names: any path may end in a format (`/images.json`), and the root lists by every method. What has
no row here is refused in both tenancies; a test has the routes written down.
"""

from __future__ import annotations

from relproxy.filters.route_table import TableRow, rows
from relproxy.model import Access, Treatment

_IMAGE = "/images/{image_id}"
_MEMBERS = f"{_IMAGE}/members"
_BY_ID = Treatment.IMAGE

TABLE: tuple[TableRow, ...] = (
    *rows("GET", "/", "image-index", Access.CALLER, Treatment.LIST),
    *rows("GET", "/images", "image-index", Access.CALLER, Treatment.LIST),
    *rows("POST", "/images", "image-create", Access.CALLER, Treatment.CREATE, has_effect=True),
    *rows("GET", "/images/detail", "image-list", Access.CALLER, Treatment.LIST),
    *rows("GET", _IMAGE, "image-show", Access.VISIBLE, _BY_ID),
    *rows("PUT", _IMAGE, "image-update", Access.OWN, _BY_ID, has_effect=True),
    *rows("DELETE", _IMAGE, "image-delete", Access.OWN, _BY_ID),
    # There is no sharing where the registry knows no customers.
    *rows("GET PUT", _MEMBERS, "image-members", Access.REFUSED, _BY_ID),
    *rows("PUT DELETE", f"{_MEMBERS}/{{member}}", "image-member", Access.REFUSED, _BY_ID),
    *rows("GET", "/shared-images/{member}", "shared-images", Access.REFUSED),
)
