"""The paths of Glance's image API v2, and what each method of them needs.

Source: glance/api/v2/router.py of Glance 33; a test walks that router and fails for a route without
a row.
"""

from __future__ import annotations

from relproxy.filters.route_table import TableRow, rows
from relproxy.model import Access, Treatment

_IMAGE = "/v2/images/{image_id}"
_BY_ID = Treatment.IMAGE

TABLE: tuple[TableRow, ...] = (
    *rows("GET", "/", "versions", Access.ANYONE, is_version_document=True),
    *rows("GET", "/versions", "versions", Access.ANYONE, is_version_document=True),
    # An old client's endpoint may end in the version: Glance redirects it to /v2/.
    *rows("GET", "/v2", "version", Access.ANYONE),
    *rows("GET", "/healthcheck", "healthcheck", Access.ADMIN),
    *rows("GET", "/v2/images", "image-list", Access.CALLER, Treatment.LIST),
    *rows("POST", "/v2/images", "image-create", Access.CALLER, Treatment.CREATE, has_effect=True),
    *rows("GET", _IMAGE, "image-show", Access.VISIBLE, _BY_ID),
    *rows("PATCH", _IMAGE, "image-update", Access.OWN, _BY_ID, has_effect=True),
    *rows("DELETE", _IMAGE, "image-delete", Access.OWN, _BY_ID),
    *rows("GET", f"{_IMAGE}/file", "image-download", Access.VISIBLE, _BY_ID, moves_data=True),
    *rows("PUT", f"{_IMAGE}/file", "image-upload", Access.OWN, _BY_ID, moves_data=True),
    *rows("PUT", f"{_IMAGE}/stage", "image-stage", Access.OWN, _BY_ID, moves_data=True),
    *rows("POST", f"{_IMAGE}/import", "image-import", Access.OWN, _BY_ID, has_effect=True),
    *rows("PUT DELETE", f"{_IMAGE}/tags/{{tag}}", "image-tag", Access.OWN, _BY_ID),
    *rows("GET", f"{_IMAGE}/tasks", "image-tasks", Access.ADMIN, _BY_ID),
    *rows("GET POST", f"{_IMAGE}/locations", "image-locations", Access.ADMIN, _BY_ID),
    *rows("POST", f"{_IMAGE}/actions/deactivate", "image-deactivate", Access.ADMIN, _BY_ID),
    *rows("POST", f"{_IMAGE}/actions/reactivate", "image-reactivate", Access.ADMIN, _BY_ID),
    # There is no sharing where the registry knows no customers.
    *rows("GET POST", f"{_IMAGE}/members", "image-members", Access.REFUSED, _BY_ID),
    *rows("GET PUT DELETE", f"{_IMAGE}/members/{{member}}", "image-member", Access.REFUSED, _BY_ID),
    *rows("DELETE", "/v2/stores/{store}/{image_id}", "store-image", Access.ADMIN, _BY_ID),
    *rows("GET POST", "/v2/tasks", "tasks", Access.ADMIN),
    *rows("GET DELETE", "/v2/tasks/{task}", "task", Access.ADMIN),
    *rows("GET DELETE", "/v2/cache", "cache", Access.ADMIN),
    *rows("POST", "/v2/cache/clean", "cache", Access.ADMIN),
    *rows("POST", "/v2/cache/prune", "cache", Access.ADMIN),
    *rows("GET", "/v2/cache/nodes/{image_id}", "cache", Access.ADMIN),
    *rows("PUT DELETE", "/v2/cache/{image_id}", "cache", Access.ADMIN),
    *rows("GET", "/v2/info/import", "info", Access.CALLER),
    *rows("GET", "/v2/info/stores", "info", Access.CALLER),
    *rows("GET", "/v2/info/stores/detail", "info", Access.ADMIN),
    *rows("GET", "/v2/info/usage", "info", Access.ADMIN),
    *rows("GET", "/v2/schemas/{schema}", "schema", Access.CALLER),
    *rows("GET", "/v2/schemas/metadefs/{schema}", "schema", Access.CALLER),
    # A registry without customers shows its private namespaces to everyone: reads are closed too.
    *rows("GET POST PUT DELETE", "/v2/metadefs/**", "metadefs", Access.ADMIN),
)
