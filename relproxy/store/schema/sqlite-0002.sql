-- project_since: when the owner was changed last, microseconds since 1970, UTC; 0 if never.
-- registry: the names that records name, so that none is forgotten by the configuration unnoticed.
ALTER TABLE image_record ADD COLUMN project_since INTEGER NOT NULL DEFAULT 0;

CREATE INDEX image_record_deleted ON image_record (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE registry (name TEXT PRIMARY KEY);

INSERT INTO registry (name) SELECT DISTINCT registry FROM image_record;
