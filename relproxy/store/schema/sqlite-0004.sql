-- What may be told before the record that it is about is kept beside the records; put applies it.
-- made_by: the project that a record was put with, where its owner was changed since. project_since
-- has no use any more: owner_change says it.
ALTER TABLE image_record ADD COLUMN made_by TEXT;

-- The latest change of each image's owner. waits: 1 until there is a record of the image.
CREATE TABLE owner_change (
    image_id   TEXT    NOT NULL,
    registry   TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    project    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    waits      INTEGER NOT NULL,
    PRIMARY KEY (image_id, registry, created_at)
) WITHOUT ROWID;

CREATE INDEX owner_change_waits ON owner_change (at) WHERE waits = 1;

INSERT INTO owner_change
SELECT image_id, registry, created_at, project, project_since, 0
FROM image_record WHERE project_since > 0;

-- Deletions. created_at: of which image under the id; empty where that isn't known. One that is known
-- goes once it has marked its record.
CREATE TABLE burial (
    image_id   TEXT    NOT NULL,
    registry   TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (image_id, registry, created_at, at)
) WITHOUT ROWID;

CREATE INDEX burial_at ON burial (at);

-- The old names of registries: journals may still use them.
CREATE TABLE renamed_registry (
    old TEXT PRIMARY KEY,
    new TEXT NOT NULL
);
