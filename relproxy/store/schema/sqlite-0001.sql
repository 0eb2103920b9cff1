-- One row an image that was created through relproxy (docs/architecture.md, The store).
-- created_at is the registry's own text; recorded_at and deleted_at are
-- microseconds since 1970, UTC; deleted_at is set once the image was deleted through relproxy.
CREATE TABLE image_record (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    registry     TEXT    NOT NULL,
    image_id     TEXT    NOT NULL,
    created_at   TEXT    NOT NULL,
    project      TEXT    NOT NULL,
    installation TEXT,
    instance_id  TEXT,
    grade        TEXT CHECK (grade IN ('vouched', 'claimed')),
    recorded_at  INTEGER NOT NULL,
    deleted_at   INTEGER,
    CHECK ((installation IS NULL) = (instance_id IS NULL)),
    CHECK ((grade IS NULL) = (instance_id IS NULL)),
    UNIQUE (registry, image_id, created_at)
);

CREATE INDEX image_record_by_instance
    ON image_record (instance_id, installation, project) WHERE instance_id IS NOT NULL;

CREATE INDEX image_record_by_project
    ON image_record (project, registry) WHERE deleted_at IS NULL;

CREATE INDEX image_record_by_image ON image_record (image_id);
