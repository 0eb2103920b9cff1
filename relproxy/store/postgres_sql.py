"""The statements of the PostgreSQL store."""

from __future__ import annotations

from collections.abc import Mapping

TABLES = ("image_record", "image_record_again")

VERSION = "SELECT max(version) FROM schema_version"

# Who takes a transaction: the cluster, and which of its primaries (PostgreSQL docs, 27.3.5 and
# "timelines": the first eight digits of a WAL file's name).
IDENTITY = """
(SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
 FROM pg_control_system())
"""

# The numbers of names, NULL for one that has none; `asked` is an expression beside them.
# And: a commit that isn't on disk is no commit; whatever is stronger (remote_apply) stays. In each
# transaction, because a pool resets what a session was told.
NUMBERS = """
SELECT {asked} AS asked,
    CASE WHEN current_setting('synchronous_commit') = 'off'
         THEN set_config('synchronous_commit', 'on', true) END,
    ARRAY(SELECT p.id FROM unnest($1::text[]) WITH ORDINALITY AS u (name, place)
          LEFT JOIN project p ON p.name = u.name ORDER BY u.place) AS projects,
    ARRAY(SELECT s.id
          FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[]) WITH ORDINALITY
               AS u (registry, installation, grade, created_suffix, place)
          LEFT JOIN source s
              ON s.registry = u.registry AND s.created_suffix = u.created_suffix
             AND COALESCE(s.installation::text, '') = COALESCE(u.installation::text, '')
             AND COALESCE(s.grade, '') = COALESCE(u.grade, '')
          ORDER BY u.place) AS sources
"""

ADD_PROJECTS = "INSERT INTO project (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"

ADD_SOURCES = """
INSERT INTO source (registry, installation, grade, created_suffix)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[])
ON CONFLICT DO NOTHING
"""

ADD_OPAQUE = """
INSERT INTO opaque_id (id, name) SELECT * FROM unnest($1::uuid[], $2::text[])
ON CONFLICT DO NOTHING
"""

NAMES_OF_OPAQUE = "SELECT id, name FROM opaque_id WHERE id = ANY($1::uuid[])"

_GIVEN = """
unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::int[])
    AS g (image_id, instance_id, created_at, recorded_at, project_id, source_id)
"""

# The project of a record never changes, and a claim never replaces what a trusted source said.
_MERGE = """
DO UPDATE SET instance_id = excluded.instance_id, source_id = excluded.source_id
WHERE held.created_at = excluded.created_at AND held.project_id = excluded.project_id AND (
    SELECT h.registry = e.registry AND h.created_suffix = e.created_suffix
       AND e.grade IS NOT NULL
       AND (h.grade IS NULL OR (h.grade = 'claimed' AND e.grade = 'vouched'))
    FROM source h, source e WHERE h.id = held.source_id AND e.id = excluded.source_id)
"""

PUT = f"""
INSERT INTO image_record AS held
    (image_id, instance_id, created_at, recorded_at, project_id, source_id)
SELECT * FROM {_GIVEN}
ON CONFLICT (image_id) {_MERGE}
"""  # noqa: S608 - constants

# After PUT each id is in image_record, if not by this record then by another image's.
PUT_AGAIN = f"""
INSERT INTO image_record_again AS held
    (image_id, instance_id, created_at, recorded_at, project_id, source_id, made_as)
SELECT g.*, n.registry || ' ' || g.created_at || n.created_suffix
FROM {_GIVEN}
JOIN source n ON n.id = g.source_id
JOIN image_record r ON r.image_id = g.image_id
JOIN source s ON s.id = r.source_id
WHERE (r.created_at, s.registry, s.created_suffix) <> (g.created_at, n.registry, n.created_suffix)
ON CONFLICT (image_id, made_as) {_MERGE}
"""  # noqa: S608 - constants

BURY = """
UPDATE {table} r SET deleted_at = u.at
FROM unnest($1::uuid[], $2::text[], $3::int[]) AS u (image_id, registry, at), source s
WHERE r.image_id = u.image_id AND s.id = r.source_id AND s.registry = u.registry
  AND r.recorded_at <= u.at AND r.deleted_at IS NULL
"""

CHANGE_OWNER = """
UPDATE {table} r SET project_id = u.project_id, project_since = u.at
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::int[], $6::int[])
     AS u (image_id, registry, created_at, created_suffix, project_id, at), source s
WHERE r.image_id = u.image_id AND s.id = r.source_id AND s.registry = u.registry
  AND r.created_at = u.created_at AND s.created_suffix = u.created_suffix
  AND COALESCE(r.project_since, -2147483648) < u.at
"""

PURGE = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE deleted_at < $1 LIMIT $2))
"""

OWNERS = """
SELECT r.image_id, p.name, r.created_at, s.created_suffix
FROM any_image_record r
JOIN source s ON s.id = r.source_id
JOIN project p ON p.id = r.project_id
WHERE r.image_id = ANY($1::uuid[]) AND s.registry = $2 AND r.deleted_at IS NULL
ORDER BY r.recorded_at, r.created_at
"""

IMAGES_OF_INSTANCE = """
SELECT r.image_id, r.created_at, s.created_suffix
FROM any_image_record r
JOIN source s ON s.id = r.source_id
WHERE s.registry = $1 AND r.instance_id = $2 AND r.deleted_at IS NULL
  AND ($3::uuid IS NULL OR s.installation = $3)
  AND ($4::text IS NULL OR r.project_id = (SELECT id FROM project WHERE name = $4))
ORDER BY r.recorded_at DESC, r.image_id DESC
"""

# The first condition says what is asked, the second says it so that the index serves. A project
# that nobody has heard of is a NULL, which nothing contains; an empty array would be in everything.
_OF_PROJECT = """
r.project_id = (SELECT id FROM project WHERE name = {name})
  AND ARRAY[r.project_id] @> ARRAY[(SELECT id FROM project WHERE name = {name})]
"""

IMAGES_OF_PROJECT = f"""
SELECT DISTINCT r.image_id
FROM any_image_record r
JOIN source s ON s.id = r.source_id
WHERE {_OF_PROJECT.format(name="$2")}
  AND s.registry = $1 AND r.deleted_at IS NULL
LIMIT $3
"""  # noqa: S608 - constants

# Text is compared by its bytes, as Python and SQLite do, whatever the database's own order is.
_PLACE = 'r.recorded_at, r.image_id, r.created_at, s.registry COLLATE "C"'

_ALL = """
SELECT r.image_id, r.instance_id, r.created_at, r.recorded_at, r.deleted_at, r.project_since,
       p.name AS project, s.registry, s.installation, s.grade, s.created_suffix
FROM any_image_record r
JOIN source s ON s.id = r.source_id
JOIN project p ON p.id = r.project_id
"""

_RECORDS = f"""
{_ALL}
WHERE ({_PLACE}) < ($1::int, $2::uuid, $3::int, $4::text) {{narrowed}}
ORDER BY {_PLACE.replace(",", " DESC,")} DESC
LIMIT $5
"""

_NARROWED = {
    "instance": "r.instance_id = {name}",
    "image": "r.image_id = {name}",
    "installation": "s.installation = {name}",
    "project": _OF_PROJECT,
}

WALK = f"""
{_ALL}
WHERE ({_PLACE}) > ($1::int, $2::uuid, $3::int, $4::text)
ORDER BY {_PLACE}
"""


def records(asked: Mapping[str, object]) -> tuple[str, list[object]]:
    """Return the statement for a page of records, and its parameters from the sixth on.

    `asked` gives a value for an instance, image, installation or project; None is any.
    """
    given = [(name, value) for name, value in asked.items() if value is not None]
    narrowed = "".join(
        f" AND {_NARROWED[name].format(name=f'${place}')}"
        for place, (name, _) in enumerate(given, start=6)
    )
    return _RECORDS.format(narrowed=narrowed), [value for _, value in given]
