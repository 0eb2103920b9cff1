"""The statements of the PostgreSQL store that write."""

from __future__ import annotations

from relproxy.model import CLOCKS_DIFFER_S
from relproxy.store.packing import ANY_CREATED_AT

# Every put holds this lock as one of many until it commits. Whoever holds it alone, if only for a
# moment, knows that what was being put before is there to be seen, and that what is put after sees
# what was committed before (docs/decisions/0013).
_LOCK = 7264500322
ALONE = f"SELECT pg_advisory_xact_lock({_LOCK})"

# A commit that isn't on disk is no commit; whatever is stronger (remote_apply) stays. In each
# transaction, because a pool resets what a session was told.
_DURABLY = """
CASE WHEN current_setting('synchronous_commit') = 'off'
     THEN set_config('synchronous_commit', 'on', true) END
"""

# The first statement of each transaction that puts, because what comes after has to see what others
# had put when the lock was given.
BEGIN_PUT = f"SELECT {_DURABLY}, pg_advisory_xact_lock_shared({_LOCK})"

# And the numbers of names, NULL for one that has none; `asked` is an expression beside them.
NUMBERS = f"""
{BEGIN_PUT}, {{asked}} AS asked,
    ARRAY(SELECT p.id FROM unnest($1::text[]) WITH ORDINALITY AS u (name, place)
          LEFT JOIN project p ON p.name = u.name ORDER BY u.place) AS projects,
    ARRAY(SELECT s.id
          FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[]) WITH ORDINALITY
               AS u (registry, installation, grade, created_suffix, place)
          LEFT JOIN renamed_registry n ON n.old = u.registry
          LEFT JOIN source s
              ON s.registry = COALESCE(n.new, u.registry) AND s.created_suffix = u.created_suffix
             AND COALESCE(s.installation::text, '') = COALESCE(u.installation::text, '')
             AND COALESCE(s.grade, '') = COALESCE(u.grade, '')
          ORDER BY u.place) AS sources
"""  # noqa: S608 - constants

ADD_PROJECTS = "INSERT INTO project (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"

ADD_SOURCES = """
INSERT INTO source (registry, installation, grade, created_suffix)
SELECT COALESCE(n.new, u.registry), u.installation, u.grade, u.created_suffix
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[])
     AS u (registry, installation, grade, created_suffix)
LEFT JOIN renamed_registry n ON n.old = u.registry
ON CONFLICT DO NOTHING
"""

ADD_OPAQUE = """
INSERT INTO opaque_id (id, name) SELECT * FROM unnest($1::uuid[], $2::text[])
ON CONFLICT DO NOTHING
"""

# What was imported gives way to what wasn't.
_GIVES_WAY = "h.grade = 'imported' AND e.grade IS DISTINCT FROM 'imported'"

# The sources of the record that is held, and of the one that comes.
_OF_BOTH = "FROM source h, source e WHERE h.id = held.source_id AND e.id = excluded.source_id"

# Of two of one kind, a vouched capture is better than a claimed one, in the order of their names;
# none is the worst.
_IS_BETTER = f"""
COALESCE((
    SELECT ({_GIVES_WAY}) IS TRUE OR (
        (COALESCE(h.grade, '') = 'imported') = (COALESCE(e.grade, '') = 'imported')
        AND COALESCE(held.made_by, held.project_id) = excluded.project_id
        AND (COALESCE(e.grade, ''), e.installation IS NOT NULL, h.installation, held.instance_id)
          > (COALESCE(h.grade, ''), h.installation IS NOT NULL, e.installation,
             excluded.instance_id))
    {_OF_BOTH}), false)
"""

# The project that a record was put with never changes, unless it was imported; and a claim never
# replaces what a trusted source said.
_MERGE = f"""
DO UPDATE SET
    project_id = CASE WHEN held.made_by IS NULL AND (SELECT {_GIVES_WAY} {_OF_BOTH})
                      THEN excluded.project_id ELSE held.project_id END,
    made_by = CASE WHEN held.made_by IS NOT NULL AND (SELECT {_GIVES_WAY} {_OF_BOTH})
                   THEN excluded.project_id ELSE held.made_by END,
    instance_id = CASE WHEN {_IS_BETTER} THEN excluded.instance_id ELSE held.instance_id END,
    source_id = CASE WHEN {_IS_BETTER} THEN excluded.source_id ELSE held.source_id END,
    recorded_at = LEAST(held.recorded_at, excluded.recorded_at)
WHERE held.created_at = excluded.created_at
  AND (SELECT h.registry = e.registry AND h.created_suffix = e.created_suffix
          AND (COALESCE(held.made_by, held.project_id) = excluded.project_id
               OR 'imported' IN (COALESCE(h.grade, ''), COALESCE(e.grade, '')))
       {_OF_BOTH})
  AND (excluded.recorded_at < held.recorded_at OR {_IS_BETTER})
"""

# A count, because one row of a table that was empty when this was planned would be looked for by
# reading all of it.
_IS_KEPT = """
EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id)
        WHERE (SELECT count(*) FROM {table} k WHERE k.image_id = u.id) > 0)
"""

# How many went in, and whether something is kept of these images.
PUT = f"""
WITH written AS (
    INSERT INTO image_record AS held
        (image_id, instance_id, created_at, recorded_at, project_id, source_id)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::int[])
    ON CONFLICT (image_id) {_MERGE}
    RETURNING 1)
SELECT (SELECT count(*) FROM written) AS written,
       {_IS_KEPT.format(table="owner_change")} AS has_owners,
       {_IS_KEPT.format(table="burial")} AS has_burials
"""  # noqa: S608 - constants

# After PUT each id is in image_record, if not by this record then by another image's.
PUT_AGAIN = f"""
INSERT INTO image_record_again AS held
    (image_id, instance_id, created_at, recorded_at, project_id, source_id, origin_id)
SELECT g.*
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[])
     AS g (image_id, instance_id, created_at, recorded_at, project_id, source_id, origin_id)
JOIN source n ON n.id = g.source_id
JOIN image_record r ON r.image_id = g.image_id
JOIN source s ON s.id = r.source_id
WHERE (r.created_at, s.registry, s.created_suffix) <> (g.created_at, n.registry, n.created_suffix)
ON CONFLICT (image_id, created_at, origin_id) {_MERGE}
"""  # noqa: S608 - constants

# Text is compared by its bytes, as Python and SQLite do, whatever the database's own order is.
KEEP_OWNERS = """
INSERT INTO owner_change AS held (image_id, created_at, origin_id, project_id, at, waits)
SELECT u.*, true FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::bigint[]) AS u
ON CONFLICT (image_id, created_at, origin_id)
DO UPDATE SET project_id = excluded.project_id, at = excluded.at
WHERE (held.at, (SELECT name COLLATE "C" FROM project WHERE id = held.project_id))
    < (excluded.at, (SELECT name COLLATE "C" FROM project WHERE id = excluded.project_id))
"""

KEEP_BURIALS = """
INSERT INTO burial (image_id, created_at, origin_id, at)
SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[])
ON CONFLICT DO NOTHING
"""

# A record, its source, what is kept, and the origin of that: do they mean the same image?
_SAME_IMAGE = """
k.image_id = r.image_id AND k.created_at = r.created_at
    AND ks.id = k.origin_id AND ks.registry = s.registry AND ks.created_suffix = s.created_suffix
"""

# Compared by whole seconds, as `Burial.buries` does.
_IS_BURIED = f"""
k.image_id = r.image_id AND ks.id = k.origin_id AND ks.registry = s.registry
    AND CASE WHEN k.created_at = {ANY_CREATED_AT} THEN r.recorded_at <= k.at + {CLOCKS_DIFFER_S}
             ELSE k.created_at = r.created_at AND ks.created_suffix = s.created_suffix END
"""

_TAKE_OWNERS = f"""
UPDATE {{table}} r
SET made_by = COALESCE(r.made_by, r.project_id), project_id = k.project_id
FROM owner_change k, source ks, source s
WHERE k.image_id = ANY($1::uuid[]) AND s.id = r.source_id AND {_SAME_IMAGE}
  AND r.project_id <> k.project_id
"""  # noqa: S608 - constants

_TAKE_BURIALS = f"""
UPDATE {{table}} r
SET deleted_at = (SELECT min(k.at) FROM burial k, source ks WHERE {_IS_BURIED})
FROM source s
WHERE r.image_id = ANY($1::uuid[]) AND s.id = r.source_id
  AND EXISTS (SELECT FROM burial k, source ks
              WHERE {_IS_BURIED} AND (r.deleted_at IS NULL OR k.at < r.deleted_at))
"""  # noqa: S608 - constants


def _in_both_tables(statement: str) -> str:
    """Return one statement that changes both tables of records."""
    first, again = (statement.format(table=f"image_record{end}") for end in ("", "_again"))
    return f"WITH first AS ({first}) {again}"


# Let the records of some images be as the changes that are kept of these say.
TAKE_OWNERS = (
    _in_both_tables(_TAKE_OWNERS),
    f"""
UPDATE owner_change k SET waits = false
FROM any_image_record r, source s, source ks
WHERE k.image_id = ANY($1::uuid[]) AND k.waits AND s.id = r.source_id AND {_SAME_IMAGE}
""",  # noqa: S608 - constants
)

TAKE_BURIALS = (
    _in_both_tables(_TAKE_BURIALS),
    # What says which record it is of has nothing more to say. But it may have come since the
    # statement before: then it is marked by whoever wrote it.
    f"""
DELETE FROM burial k USING any_image_record r, source s, source ks
WHERE k.image_id = ANY($1::uuid[]) AND s.id = r.source_id AND {_SAME_IMAGE}
  AND r.deleted_at <= k.at
""",  # noqa: S608 - constants
)

# Is any of these images not as what is kept of it says?
IS_UNTAKEN = f"""
SELECT EXISTS (
    SELECT FROM owner_change k, source ks, any_image_record r, source s
    WHERE k.image_id = ANY($1::uuid[]) AND s.id = r.source_id AND {_SAME_IMAGE}
      AND (k.waits OR k.project_id <> r.project_id)
) OR EXISTS (
    SELECT FROM burial k, source ks, any_image_record r, source s
    WHERE k.image_id = ANY($1::uuid[]) AND s.id = r.source_id AND {_IS_BURIED}
      AND (r.deleted_at IS NULL OR r.deleted_at > k.at OR k.created_at <> {ANY_CREATED_AT})
)
"""  # noqa: S608 - constants

# Of a chain of old names each leads to its end.
RENAME = (
    "UPDATE source SET registry = $2 WHERE registry = $1",
    "UPDATE renamed_registry SET new = $2 WHERE new = $1",
)

REMEMBER_RENAMED = """
INSERT INTO renamed_registry (old, new) VALUES ($1, $2)
ON CONFLICT (old) DO UPDATE SET new = excluded.new
"""

FREE_NAME = "DELETE FROM renamed_registry WHERE old = $1"

_FORGOTTEN = """
ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} ORDER BY {by} LIMIT $2))
"""

# Of which images records were forgotten; what is kept of their owners goes with them.
PURGE_RECORDS = f"""
WITH gone AS (
    DELETE FROM {{table}}
    WHERE {_FORGOTTEN.format(table="{table}", condition="deleted_at < $1", by="deleted_at")}
    RETURNING image_id, created_at, source_id
), changes AS (
    DELETE FROM owner_change k USING gone r, source s, source ks
    WHERE s.id = r.source_id AND {_SAME_IMAGE})
SELECT image_id FROM gone
"""  # noqa: S608 - constants

_PURGE_KEPT = f"""
WITH gone AS (DELETE FROM {{table}} WHERE {_FORGOTTEN} RETURNING 1)
SELECT count(*) FROM gone
"""  # noqa: S608 - constants

PURGE_BURIALS = _PURGE_KEPT.format(table="burial", condition="at < $1", by="at")
PURGE_OWNERS = _PURGE_KEPT.format(table="owner_change", condition="waits AND at < $1", by="at")

# Images whose id has become free in image_record move there, the first of each id.
MOVE_UP = """
WITH first AS (
    SELECT DISTINCT ON (image_id) *
    FROM image_record_again WHERE image_id = ANY($1::uuid[])
    ORDER BY image_id, recorded_at, created_at, origin_id
), moved AS (
    INSERT INTO image_record
    SELECT image_id, instance_id, created_at, recorded_at, project_id, source_id, deleted_at,
           made_by
    FROM first)
DELETE FROM image_record_again a USING first f
WHERE (a.image_id, a.created_at, a.origin_id) = (f.image_id, f.created_at, f.origin_id)
"""
