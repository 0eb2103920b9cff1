"""The statements of the SQLite store."""

from __future__ import annotations

from collections.abc import Collection

from relproxy.model import CLOCKS_DIFFER_S

# What a put has to know first: registries' old names and those that are known, and whether
# something is kept of its images.
KNOWN = """
SELECT (SELECT json_group_object(old, new) FROM renamed_registry),
       (SELECT json_group_array(name) FROM registry),
       EXISTS (SELECT 1 FROM owner_change WHERE image_id IN (SELECT value FROM json_each(:ids))),
       EXISTS (SELECT 1 FROM burial WHERE image_id IN (SELECT value FROM json_each(:ids)))
"""

ADD_REGISTRY = "INSERT INTO registry (name) VALUES (?)"

# What was imported gives way to what wasn't.
_GIVES_WAY = "(image_record.is_imported AND NOT excluded.is_imported)"

# Of two of one kind, a vouched capture is better than a claimed one, in the order of their names;
# none is the worst.
_IS_BETTER = f"""
({_GIVES_WAY} OR (image_record.is_imported = excluded.is_imported
    AND COALESCE(image_record.made_by, image_record.project) = excluded.project
    AND ((COALESCE(excluded.grade, ''), image_record.installation, image_record.instance_id)
        > (COALESCE(image_record.grade, ''), excluded.installation, excluded.instance_id)) IS TRUE))
"""

# The project that a record was put with never changes, unless it was imported; and a claim never
# replaces what a trusted source said.
PUT = f"""
INSERT INTO image_record
    (registry, image_id, created_at, project, installation, instance_id, grade, recorded_at,
     is_imported)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (registry, image_id, created_at) DO UPDATE SET
    project = CASE WHEN {_GIVES_WAY} AND image_record.made_by IS NULL THEN excluded.project
                   ELSE image_record.project END,
    made_by = CASE WHEN {_GIVES_WAY} AND image_record.made_by IS NOT NULL THEN excluded.project
                   ELSE image_record.made_by END,
    installation = CASE WHEN {_IS_BETTER} THEN excluded.installation
                        ELSE image_record.installation END,
    instance_id = CASE WHEN {_IS_BETTER} THEN excluded.instance_id
                       ELSE image_record.instance_id END,
    grade = CASE WHEN {_IS_BETTER} THEN excluded.grade ELSE image_record.grade END,
    recorded_at = MIN(image_record.recorded_at, excluded.recorded_at),
    is_imported = image_record.is_imported AND excluded.is_imported
WHERE (image_record.is_imported OR excluded.is_imported
       OR COALESCE(image_record.made_by, image_record.project) = excluded.project)
  AND ({_IS_BETTER} OR excluded.recorded_at < image_record.recorded_at)
"""  # noqa: S608 - constants

KEEP_OWNER = """
INSERT INTO owner_change (registry, image_id, created_at, project, at, waits)
VALUES (?, ?, ?, ?, ?, 1)
ON CONFLICT (image_id, registry, created_at) DO UPDATE SET
    project = excluded.project, at = excluded.at
WHERE (owner_change.at, owner_change.project) < (excluded.at, excluded.project)
"""

KEEP_BURIAL = """
INSERT INTO burial (registry, image_id, created_at, at) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

_OF_ASKED = "image_id IN (SELECT value FROM json_each(:ids))"

_IS_CHANGED = """
owner_change.image_id = image_record.image_id AND owner_change.registry = image_record.registry
    AND owner_change.created_at = image_record.created_at
"""

# Compared by whole seconds, as `Burial.buries` does.
_IS_BURIED = f"""
burial.image_id = image_record.image_id AND burial.registry = image_record.registry
    AND (burial.created_at = image_record.created_at
         OR (burial.created_at = ''
             AND image_record.recorded_at / 1000000 <= burial.at / 1000000 + {CLOCKS_DIFFER_S}))
"""

# Let the records of some images be as the changes that are kept of these say.
TAKE_OWNERS = (
    f"""
UPDATE image_record SET
    made_by = COALESCE(made_by, project),
    project = (SELECT project FROM owner_change WHERE {_IS_CHANGED})
WHERE {_OF_ASKED}
  AND EXISTS (SELECT 1 FROM owner_change
              WHERE {_IS_CHANGED} AND owner_change.project <> image_record.project)
""",  # noqa: S608 - constants
    f"""
UPDATE owner_change SET waits = 0
WHERE waits = 1 AND {_OF_ASKED} AND EXISTS (SELECT 1 FROM image_record WHERE {_IS_CHANGED})
""",  # noqa: S608 - constants
)

TAKE_BURIALS = (
    f"""
UPDATE image_record SET deleted_at = (SELECT MIN(at) FROM burial WHERE {_IS_BURIED})
WHERE {_OF_ASKED}
  AND EXISTS (SELECT 1 FROM burial WHERE {_IS_BURIED}
              AND (image_record.deleted_at IS NULL OR at < image_record.deleted_at))
""",  # noqa: S608 - constants
    # What says which record it is of has nothing more to say.
    f"""
DELETE FROM burial
WHERE {_OF_ASKED} AND created_at <> ''
  AND EXISTS (SELECT 1 FROM image_record
              WHERE {_IS_BURIED} AND image_record.created_at = burial.created_at)
""",  # noqa: S608 - constants
)

# What is kept, and what the records of the dead say: a burial that has marked its record is gone.
CHANGES = f"""
SELECT registry, image_id, created_at, project, at FROM owner_change WHERE {_OF_ASKED}
UNION ALL
SELECT registry, image_id, created_at, NULL, at FROM burial WHERE {_OF_ASKED}
UNION ALL
SELECT registry, image_id, created_at, NULL, deleted_at FROM image_record
WHERE {_OF_ASKED} AND deleted_at IS NOT NULL
"""  # noqa: S608 - constants

# Behind a place; of both kinds, each by its key.
WALK_OWNERS = """
SELECT registry, image_id, created_at, project, at FROM owner_change
WHERE (image_id, registry, created_at) > (?2, ?1, ?3)
ORDER BY image_id, registry, created_at LIMIT ?6
"""

WALK_BURIALS = """
SELECT registry, image_id, created_at, NULL, at FROM burial
WHERE (image_id, registry, created_at, at) > (?2, ?1, ?3, ?5)
ORDER BY image_id, registry, created_at, at LIMIT ?6
"""

# Every table that names registries, and the column.
RENAMED_IN = (
    ("registry", "name"),
    ("image_record", "registry"),
    ("owner_change", "registry"),
    ("burial", "registry"),
    ("renamed_registry", "new"),
)

RENAMED = "SELECT old, new FROM renamed_registry"

REMEMBER_RENAMED = """
INSERT INTO renamed_registry (old, new) VALUES (?, ?)
ON CONFLICT (old) DO UPDATE SET new = excluded.new
"""

FREE_NAME = "DELETE FROM renamed_registry WHERE old = ?"

OWNERS = """
SELECT image_id, project, created_at, is_imported FROM image_record
WHERE registry = ? AND image_id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
ORDER BY recorded_at, created_at
"""

# As `ImageRecord.counted` says it.
_COUNTS = "(grade = 'vouched' OR COALESCE(made_by, project) = project)"

IMAGES_OF_INSTANCE = f"""
SELECT image_id, created_at FROM image_record
WHERE registry = :registry AND instance_id = :instance_id AND deleted_at IS NULL AND {_COUNTS}
  AND (:installation IS NULL OR installation = :installation)
  AND (:project IS NULL OR project = :project)
ORDER BY recorded_at DESC, image_id DESC, created_at DESC
"""  # noqa: S608 - constants

IMAGES_OF_PROJECT = """
SELECT DISTINCT image_id FROM image_record
WHERE project = ? AND registry = ? AND deleted_at IS NULL LIMIT ?
"""

_COLUMNS = """
registry, image_id, created_at, project, installation, instance_id, grade, recorded_at, deleted_at,
made_by, is_imported
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
    "instance_id": f"instance_id = :instance_id AND {_COUNTS}",
    "installation": f"installation = :installation AND {_COUNTS}",
    "image_id": "image_id = :image_id",
    "project": "project = :project",
}

RECORDS_OF = f"SELECT {_COLUMNS} FROM image_record WHERE {_OF_ASKED}"  # noqa: S608 - constants

WALK = f"""
SELECT {_COLUMNS}, sequence
FROM image_record WHERE sequence > ? ORDER BY sequence LIMIT ?
"""  # noqa: S608 - constants

# One after the other, until as much is forgotten as is allowed. What is kept of a record's owner
# goes before it.
_DEAD = (
    "SELECT sequence FROM image_record WHERE deleted_at < :before ORDER BY deleted_at LIMIT :most"
)

FORGET_OWNERS = f"""
DELETE FROM owner_change WHERE (image_id, registry, created_at) IN
    (SELECT image_id, registry, created_at FROM image_record WHERE sequence IN ({_DEAD}))
"""  # noqa: S608 - constants

PURGE = (
    f"DELETE FROM image_record WHERE sequence IN ({_DEAD})",  # noqa: S608 - constants
    """
DELETE FROM burial WHERE (image_id, registry, created_at, at) IN
    (SELECT image_id, registry, created_at, at FROM burial WHERE at < :before LIMIT :most)
""",
    """
DELETE FROM owner_change WHERE (image_id, registry, created_at) IN
    (SELECT image_id, registry, created_at FROM owner_change
     WHERE waits = 1 AND at < :before LIMIT :most)
""",
)


def records(asked: Collection[str], *, is_first: bool) -> str:
    """Return the statement for one page of records, newest first.

    `asked` names what is narrowed down to: instance_id, installation, image_id, project. All but
    the first page begin behind a place: recorded_at, image_id_before, created_at, registry.
    """
    conditions = [_NARROWED[name] for name in asked]
    if not is_first:
        conditions.append(_BEFORE)
    return _RECORDS.format(conditions=" AND ".join(conditions) or "TRUE")
