-- image_record_by_project serves the pages of /v1/relations too, which show what is deleted.
-- host: the identity of the journal directory of the one host whose relproxies write this file.
DROP INDEX image_record_by_project;
CREATE INDEX image_record_by_project ON image_record (project, recorded_at);

CREATE TABLE host (identity TEXT NOT NULL);
