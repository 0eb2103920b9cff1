-- What may be told before the record that it is about is kept beside the records; put applies it
-- (docs/decisions/0013). Names that are stable under a renaming: origin_id is the source that has the
-- registry and the end of created_at, and neither installation nor grade.

DROP VIEW image_relation;
DROP VIEW any_image_record;

-- The old names of registries: journals may still use them.
CREATE TABLE renamed_registry (
    old text PRIMARY KEY,
    new text NOT NULL
);

-- The latest change of each image's owner. at: microseconds since 2020-01-01, UTC. waits: until there
-- is a record of the image.
CREATE TABLE owner_change (
    image_id   uuid    NOT NULL,
    created_at integer NOT NULL,
    origin_id  integer NOT NULL,
    project_id integer NOT NULL,
    at         bigint  NOT NULL,
    waits      boolean NOT NULL,
    PRIMARY KEY (image_id, created_at, origin_id)
);

CREATE INDEX owner_change_waits ON owner_change (at) WHERE waits;

-- Deletions. created_at: of which image under the id; -2147483648 where that isn't known, and then the
-- origin's end is empty. One that is known goes once it has marked its record.
CREATE TABLE burial (
    image_id   uuid    NOT NULL,
    created_at integer NOT NULL,
    origin_id  integer NOT NULL,
    at         integer NOT NULL,
    PRIMARY KEY (image_id, created_at, origin_id, at)
);

CREATE INDEX burial_at ON burial (at);

INSERT INTO source (registry, installation, grade, created_suffix)
SELECT DISTINCT registry, NULL::uuid, NULL, created_suffix FROM source
ON CONFLICT DO NOTHING;

INSERT INTO owner_change
SELECT r.image_id, r.created_at, o.id, r.project_id, r.project_since::bigint * 1000000, false
FROM (SELECT image_id, created_at, source_id, project_id, project_since FROM image_record
      UNION ALL
      SELECT image_id, created_at, source_id, project_id, project_since FROM image_record_again) r
JOIN source s ON s.id = r.source_id
JOIN source o ON o.registry = s.registry AND o.created_suffix = s.created_suffix AND o.grade IS NULL
WHERE r.project_since IS NOT NULL
ON CONFLICT DO NOTHING;

-- made_by: the project that a record was put with, where its owner was changed since.
UPDATE image_record SET project_since = NULL WHERE project_since IS NOT NULL;
ALTER TABLE image_record RENAME COLUMN project_since TO made_by;
UPDATE image_record_again SET project_since = NULL WHERE project_since IS NOT NULL;
ALTER TABLE image_record_again RENAME COLUMN project_since TO made_by;

-- image_record_again is keyed by what a record is. Records that stand twice, after a renaming or
-- another's purge, become one; those whose id has become free move up.
ALTER TABLE image_record_again ADD COLUMN origin_id integer;
UPDATE image_record_again r SET origin_id = o.id
FROM source s, source o
WHERE s.id = r.source_id
  AND o.registry = s.registry AND o.created_suffix = s.created_suffix AND o.grade IS NULL;

UPDATE image_record r SET deleted_at = LEAST(r.deleted_at, a.deleted_at)
FROM image_record_again a, source s, source o
WHERE a.image_id = r.image_id AND a.created_at = r.created_at AND a.deleted_at IS NOT NULL
  AND s.id = r.source_id AND o.id = a.origin_id
  AND s.registry = o.registry AND s.created_suffix = o.created_suffix;
DELETE FROM image_record_again a USING image_record r, source s, source o
WHERE a.image_id = r.image_id AND a.created_at = r.created_at
  AND s.id = r.source_id AND o.id = a.origin_id
  AND s.registry = o.registry AND s.created_suffix = o.created_suffix;
DELETE FROM image_record_again a USING image_record_again b
WHERE a.image_id = b.image_id AND a.created_at = b.created_at AND a.origin_id = b.origin_id
  AND (a.deleted_at IS NULL, a.recorded_at, a.made_as) > (b.deleted_at IS NULL, b.recorded_at, b.made_as);

INSERT INTO image_record
SELECT DISTINCT ON (a.image_id) a.image_id, a.instance_id, a.created_at, a.recorded_at, a.project_id,
       a.source_id, a.deleted_at, a.made_by
FROM image_record_again a
WHERE NOT EXISTS (SELECT FROM image_record r WHERE r.image_id = a.image_id)
ORDER BY a.image_id, a.recorded_at;
DELETE FROM image_record_again a USING image_record r, source s, source o
WHERE a.image_id = r.image_id AND a.created_at = r.created_at
  AND s.id = r.source_id AND o.id = a.origin_id
  AND s.registry = o.registry AND s.created_suffix = o.created_suffix;

ALTER TABLE image_record_again DROP COLUMN made_as;
ALTER TABLE image_record_again ADD PRIMARY KEY (image_id, created_at, origin_id);
CREATE INDEX image_record_again_deleted ON image_record_again (deleted_at)
    WHERE deleted_at IS NOT NULL;

CREATE VIEW any_image_record AS
    SELECT image_id, instance_id, created_at, recorded_at, project_id, source_id, deleted_at, made_by
    FROM image_record
    UNION ALL
    SELECT image_id, instance_id, created_at, recorded_at, project_id, source_id, deleted_at, made_by
    FROM image_record_again;

CREATE VIEW image_relation AS
    SELECT s.registry,
           COALESCE(i.name, r.image_id::text) AS image_id,
           to_char(to_timestamp(r.created_at + 1577836800) AT TIME ZONE 'UTC',
                   'YYYY-MM-DD"T"HH24:MI:SS') || s.created_suffix AS created_at,
           p.name AS project,
           s.installation,
           COALESCE(n.name, r.instance_id::text) AS instance_id,
           s.grade,
           to_timestamp(r.recorded_at + 1577836800) AS recorded_at,
           to_timestamp(r.deleted_at + 1577836800) AS deleted_at
    FROM any_image_record r
    JOIN source s ON s.id = r.source_id
    JOIN project p ON p.id = r.project_id
    LEFT JOIN opaque_id i ON i.id = r.image_id
    LEFT JOIN opaque_id n ON n.id = r.instance_id;
