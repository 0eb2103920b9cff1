"""The statements of the SQLite store."""

from __future__ import annotations

from collections.abc import Collection

# The project of a record never changes, and a claim never replaces what a trusted source said.
PUT = """
INSERT INTO image_record
    (registry, image_id, created_at, project, installation, instance_id, grade, recorded_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (registry, image_id, created_at) DO UPDATE SET
    installation = excluded.installation,
    instance_id = excluded.instance_id,
    grade = excluded.grade
WHERE image_record.project = excluded.project
  AND excluded.grade IS NOT NULL
  AND (image_record.grade IS NULL
       OR (image_record.grade = 'claimed' AND excluded.grade = 'vouched'))
"""

OWNERS = """
SELECT image_id, project, created_at FROM image_record
WHERE registry = ? AND image_id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
ORDER BY recorded_at, sequence
"""

IMAGES_OF_INSTANCE = """
SELECT image_id, created_at FROM image_record
WHERE registry = :registry AND instance_id = :instance_id AND deleted_at IS NULL
  AND (:installation IS NULL OR installation = :installation)
  AND (:project IS NULL OR project = :project)
ORDER BY recorded_at DESC, sequence DESC
"""

IMAGES_OF_PROJECT = """
SELECT DISTINCT image_id FROM image_record
WHERE project = ? AND registry = ? AND deleted_at IS NULL LIMIT ?
"""

BURY = """
UPDATE image_record SET deleted_at = :at
WHERE registry = :registry AND image_id = :image_id AND recorded_at <= :at AND deleted_at IS NULL
"""

CHANGE_OWNER = """
UPDATE image_record SET project = :project, project_since = :at
WHERE registry = :registry AND image_id = :image_id AND created_at = :created_at
  AND project_since < :at
"""

_COLUMNS = """
registry, image_id, created_at, project, installation, instance_id, grade, recorded_at, deleted_at
"""

_RECORDS = f"""
SELECT {_COLUMNS} FROM image_record
WHERE {{conditions}}
ORDER BY recorded_at DESC, image_id DESC, created_at DESC, registry DESC LIMIT :limit
"""  # noqa: S608 - constants

_BEFORE = """
(recorded_at, image_id, created_at, registry)
    < (:recorded_at, :image_id_before, :created_at, :registry)
"""

# Only the conditions that were asked for: "OR :x IS NULL" would keep SQLite from any index.
_NARROWED = {
    "instance_id": "instance_id = :instance_id",
    "installation": "installation = :installation",
    "image_id": "image_id = :image_id",
    "project": "project = :project",
}

WALK = f"""
SELECT {_COLUMNS}, project_since, sequence
FROM image_record WHERE sequence > ? ORDER BY sequence LIMIT ?
"""  # noqa: S608 - constants

PURGE = """
DELETE FROM image_record WHERE sequence IN
    (SELECT sequence FROM image_record WHERE deleted_at < ? LIMIT ?)
"""


def records(asked: Collection[str], *, is_first: bool) -> str:
    """Return the statement for one page of records, newest first.

    `asked` names what is narrowed down to: instance_id, installation, image_id, project. All but
    the first page begin behind a place: recorded_at, image_id_before, created_at, registry.
    """
    conditions = [_NARROWED[name] for name in asked]
    if not is_first:
        conditions.append(_BEFORE)
    return _RECORDS.format(conditions=" AND ".join(conditions) or "TRUE")
