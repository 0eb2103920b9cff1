-- One row a create, a deletion or a change of owner under way (relproxy/store/journal.py).
-- Times are microseconds since 1970, UTC; created_at is the registry's own text.
CREATE TABLE entry (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    kind         TEXT    NOT NULL CHECK (kind IN ('create', 'owner', 'burial')),
    state        TEXT    NOT NULL
                 CHECK (state IN ('begun', 'in_doubt', 'completed', 'delivered', 'abandoned')),
    registry     TEXT    NOT NULL,
    image_id     TEXT,
    is_assigned  INTEGER NOT NULL,
    image_name   TEXT,
    created_at   TEXT,
    project      TEXT,
    installation TEXT,
    instance_id  TEXT,
    grade        TEXT,
    begun_at     INTEGER NOT NULL,
    at           INTEGER,
    ended_at     INTEGER,
    reason       TEXT
);

-- What is open is little, whatever has been delivered and is kept for a while.
-- An index for each state: SQLite uses a partial one only where a query says its very condition.
CREATE INDEX entry_begun ON entry (sequence) WHERE state = 'begun';
CREATE INDEX entry_in_doubt ON entry (sequence) WHERE state = 'in_doubt';
CREATE INDEX entry_completed ON entry (sequence) WHERE state = 'completed';
CREATE INDEX entry_pending_by_image ON entry (image_id) WHERE state = 'completed';
CREATE INDEX entry_pending_by_instance ON entry (instance_id) WHERE state = 'completed';
CREATE INDEX entry_pending_by_project ON entry (project) WHERE state = 'completed';
CREATE INDEX entry_pending_change ON entry (sequence) WHERE state = 'completed' AND kind <> 'create';
CREATE INDEX entry_ended ON entry (ended_at) WHERE state IN ('delivered', 'abandoned');

-- The identity of the server to which the delivered entries went.
CREATE TABLE delivered_to (identity TEXT NOT NULL);
