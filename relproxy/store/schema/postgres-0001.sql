-- One row an image that was created through relproxy, packed: docs/decisions/0011. For people there
-- is the view image_relation.
--
-- Times are seconds since 2020-01-01, UTC. An id that is a UUID is kept as it is; for any other text
-- a UUID of version 8 stands, whose text is in opaque_id (and so for a UUID that is one of version 8).

CREATE TABLE project (
    id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- What many records have in common. created_suffix is what follows the seconds in the registry's own
-- created_at: Z, with Glance.
CREATE TABLE source (
    id             integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    registry       text NOT NULL,
    installation   uuid,
    grade          text CHECK (grade IN ('vouched', 'claimed')),
    created_suffix text NOT NULL,
    CHECK ((installation IS NULL) = (grade IS NULL))
);

CREATE UNIQUE INDEX source_is_unique ON source
    (registry, COALESCE(installation::text, ''), COALESCE(grade, ''), created_suffix);

CREATE TABLE opaque_id (
    id   uuid PRIMARY KEY,
    name text NOT NULL
);

-- At most eight columns: with more, the nulls of a row would cost it eight bytes.
CREATE TABLE image_record (
    image_id      uuid    NOT NULL,
    instance_id   uuid,
    created_at    integer NOT NULL,
    recorded_at   integer NOT NULL,
    project_id    integer NOT NULL,
    source_id     integer NOT NULL,
    deleted_at    integer,
    project_since integer,
    PRIMARY KEY (image_id) WITH (fillfactor = 100)
);

CREATE INDEX image_record_by_instance ON image_record (instance_id);
-- A list of rows for each project, in half the bytes that a B-tree takes for them.
CREATE INDEX image_record_by_project ON image_record USING gin ((ARRAY[project_id]))
    WITH (fastupdate = off);
CREATE INDEX image_record_deleted ON image_record (deleted_at) WHERE deleted_at IS NOT NULL;

-- Further images under an id that image_record has already: created anew after a deletion, or at
-- another registry. made_as is the registry and its created_at.
CREATE TABLE image_record_again (
    image_id      uuid    NOT NULL,
    instance_id   uuid,
    created_at    integer NOT NULL,
    recorded_at   integer NOT NULL,
    project_id    integer NOT NULL,
    source_id     integer NOT NULL,
    deleted_at    integer,
    project_since integer,
    made_as       text    NOT NULL,
    PRIMARY KEY (image_id, made_as)
);

CREATE INDEX image_record_again_by_instance ON image_record_again (instance_id);
CREATE INDEX image_record_again_by_project ON image_record_again USING gin ((ARRAY[project_id]))
    WITH (fastupdate = off);

CREATE VIEW any_image_record AS
    SELECT image_id, instance_id, created_at, recorded_at, project_id, source_id, deleted_at,
           project_since
    FROM image_record
    UNION ALL
    SELECT image_id, instance_id, created_at, recorded_at, project_id, source_id, deleted_at,
           project_since
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

CREATE TABLE schema_version (
    version integer NOT NULL
);
