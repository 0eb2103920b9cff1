"""The statements of the PostgreSQL store that read."""

from __future__ import annotations

from collections.abc import Mapping

VERSION = "SELECT max(version) FROM schema_version"

# Who takes a transaction: the cluster, and which of its primaries (PostgreSQL docs, 27.3.5 and
# "timelines": the first eight digits of a WAL file's name).
IDENTITY = """
(SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
 FROM pg_control_system())
"""

NAMES_OF_OPAQUE = "SELECT id, name FROM opaque_id WHERE id = ANY($1::uuid[])"

_KEPT_OWNERS = """
SELECT s.registry, k.image_id, k.created_at, s.created_suffix, p.name AS project, k.at
FROM owner_change k
JOIN source s ON s.id = k.origin_id
JOIN project p ON p.id = k.project_id
"""

_KEPT_BURIALS = """
SELECT s.registry, k.image_id, k.created_at, s.created_suffix, NULL AS project,
       k.at * 1000000::bigint AS at
FROM burial k
JOIN source s ON s.id = k.origin_id
"""

# What is kept, and what the records of the dead say: a burial that has marked its record is gone.
CHANGES = f"""
{_KEPT_OWNERS} WHERE k.image_id = ANY($1::uuid[])
UNION ALL
{_KEPT_BURIALS} WHERE k.image_id = ANY($1::uuid[])
UNION ALL
SELECT s.registry, r.image_id, r.created_at, s.created_suffix, NULL, r.deleted_at * 1000000::bigint
FROM any_image_record r
JOIN source s ON s.id = r.source_id
WHERE r.image_id = ANY($1::uuid[]) AND r.deleted_at IS NOT NULL
"""  # noqa: S608 - constants

WALK_CHANGES = (_KEPT_OWNERS, _KEPT_BURIALS)

RENAMED = "SELECT old, new FROM renamed_registry"

OWNERS = """
SELECT r.image_id, p.name, r.created_at, s.created_suffix,
       s.grade IS NOT DISTINCT FROM 'imported'
FROM any_image_record r
JOIN source s ON s.id = r.source_id
JOIN project p ON p.id = r.project_id
WHERE r.image_id = ANY($1::uuid[]) AND s.registry = $2 AND r.deleted_at IS NULL
ORDER BY r.recorded_at, r.created_at, s.created_suffix COLLATE "C"
"""

# As `ImageRecord.counted` says it.
_COUNTS = "(s.grade = 'vouched' OR COALESCE(r.made_by, r.project_id) = r.project_id)"

IMAGES_OF_INSTANCE = f"""
SELECT r.image_id, r.created_at, s.created_suffix
FROM any_image_record r
JOIN source s ON s.id = r.source_id
WHERE s.registry = $1 AND r.instance_id = $2 AND r.deleted_at IS NULL AND {_COUNTS}
  AND ($3::uuid IS NULL OR s.installation = $3)
  AND ($4::text IS NULL OR r.project_id = (SELECT id FROM project WHERE name = $4))
ORDER BY r.recorded_at DESC, r.image_id DESC, r.created_at DESC, s.created_suffix COLLATE "C" DESC
"""  # noqa: S608 - constants

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
SELECT r.image_id, r.instance_id, r.created_at, r.recorded_at, r.deleted_at,
       p.name AS project, COALESCE(m.name, p.name) AS made_for,
       s.registry, s.installation, s.grade, s.created_suffix
FROM any_image_record r
JOIN source s ON s.id = r.source_id
JOIN project p ON p.id = r.project_id
LEFT JOIN project m ON m.id = r.made_by
"""

_RECORDS = f"""
{_ALL}
WHERE ({_PLACE}) < ($1::int, $2::uuid, $3::int, $4::text) {{narrowed}}
ORDER BY {_PLACE.replace(",", " DESC,")} DESC
LIMIT $5
"""

_NARROWED = {
    "instance": f"r.instance_id = {{name}} AND {_COUNTS}",
    "image": "r.image_id = {name}",
    "installation": f"s.installation = {{name}} AND {_COUNTS}",
    "project": _OF_PROJECT,
}

RECORDS_OF = f"{_ALL} WHERE r.image_id = ANY($1::uuid[])"

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
