"""The statements of the PostgreSQL store, and its schema versions."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

TABLES = ("image_record", "image_record_again")

VERSION = "SELECT max(version) FROM schema_version"

# A commit that isn't on disk is no commit; whatever is stronger (remote_apply) stays. In each
# transaction, because a pool resets what a session was told.
_ON_DISK = """
CASE WHEN current_setting('synchronous_commit') = 'off'
     THEN set_config('synchronous_commit', 'on', true) END
"""

ON_DISK = f"SELECT NULL, {_ON_DISK}"

# Who took a transaction: the cluster, and which of its primaries (PostgreSQL docs, 27.3.5 and
# "timelines": the first eight digits of a WAL file's name).
IDENTITY = f"""
SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
       {_ON_DISK}
FROM pg_control_system()
"""  # noqa: S608 - a constant

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
WITH given AS (
    SELECT u.image_id, u.instance_id, u.created_at, u.recorded_at, p.id AS project_id,
           s.id AS source_id, u.registry, u.created_suffix
    FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[], $7::uuid[],
                $8::text[], $9::text[])
         AS u (image_id, instance_id, created_at, recorded_at, project, registry, installation,
               grade, created_suffix)
    JOIN project p ON p.name = u.project
    JOIN source s ON s.registry = u.registry AND s.created_suffix = u.created_suffix
         AND COALESCE(s.installation::text, '') = COALESCE(u.installation::text, '')
         AND COALESCE(s.grade, '') = COALESCE(u.grade, '')
    ORDER BY u.image_id
)
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
{_GIVEN}
INSERT INTO image_record AS held
    (image_id, instance_id, created_at, recorded_at, project_id, source_id)
SELECT image_id, instance_id, created_at, recorded_at, project_id, source_id FROM given
ON CONFLICT (image_id) {_MERGE}
"""  # noqa: S608 - constants

# After PUT each id is in image_record, if not by this record then by another image's.
PUT_AGAIN = f"""
{_GIVEN}
INSERT INTO image_record_again AS held
    (image_id, instance_id, created_at, recorded_at, project_id, source_id, made_as)
SELECT g.image_id, g.instance_id, g.created_at, g.recorded_at, g.project_id, g.source_id,
       g.registry || ' ' || g.created_at || g.created_suffix
FROM given g JOIN image_record r ON r.image_id = g.image_id JOIN source s ON s.id = r.source_id
WHERE (r.created_at, s.registry, s.created_suffix) <> (g.created_at, g.registry, g.created_suffix)
ON CONFLICT (image_id, made_as) {_MERGE}
"""  # noqa: S608 - constants

BURY = """
UPDATE {table} r SET deleted_at = u.at
FROM unnest($1::uuid[], $2::text[], $3::int[]) AS u (image_id, registry, at), source s
WHERE r.image_id = u.image_id AND s.id = r.source_id AND s.registry = u.registry
  AND r.recorded_at <= u.at AND r.deleted_at IS NULL
"""

CHANGE_OWNER = """
UPDATE {table} r SET project_id = p.id, project_since = u.at
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::int[])
     AS u (image_id, registry, created_at, created_suffix, project, at), source s, project p
WHERE r.image_id = u.image_id AND s.id = r.source_id AND s.registry = u.registry
  AND r.created_at = u.created_at AND s.created_suffix = u.created_suffix
  AND p.name = u.project AND COALESCE(r.project_since, -2147483648) < u.at
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

IMAGES_OF_PROJECT = """
SELECT DISTINCT r.image_id
FROM any_image_record r
JOIN source s ON s.id = r.source_id
WHERE r.project_id = (SELECT id FROM project WHERE name = $2)
  AND s.registry = $1 AND r.deleted_at IS NULL
LIMIT $3
"""

RELATIONS = """
SELECT r.image_id, r.instance_id, r.created_at, r.recorded_at, r.deleted_at, p.name AS project,
       s.registry, s.installation, s.grade, s.created_suffix
FROM any_image_record r
JOIN source s ON s.id = r.source_id
JOIN project p ON p.id = r.project_id
WHERE (r.recorded_at, r.image_id, r.created_at) < ($1::int, $2::uuid, $3::int) {narrowed}
ORDER BY r.recorded_at DESC, r.image_id DESC, r.created_at DESC
LIMIT $4
"""


def narrowed(statement: str, conditions: Iterable[tuple[str, object]]) -> tuple[str, list[object]]:
    """Return a statement of four parameters with a condition for each value that isn't None."""
    asked = [(column, value) for column, value in conditions if value is not None]
    clauses = (f"AND {column} = ${place}" for place, (column, _) in enumerate(asked, start=5))
    return statement.format(narrowed=" ".join(clauses)), [value for _, value in asked]


def schema_versions() -> list[str]:
    """Return the schema scripts, in the order of their numbers."""
    room = resources.files("relproxy.store") / "schema"
    files = sorted(
        (f for f in room.iterdir() if f.name.startswith("postgres-")), key=lambda f: f.name
    )
    return [file.read_text(encoding="utf-8") for file in files]
