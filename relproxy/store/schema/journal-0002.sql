-- A completed entry that the store refuses is parked: `ended_at` says since when, `reason` why. The
-- relay passes it over, until a person has settled it.
DROP INDEX entry_completed;
CREATE INDEX entry_due ON entry (sequence) WHERE state = 'completed' AND ended_at IS NULL;
CREATE INDEX entry_parked ON entry (sequence) WHERE state = 'completed' AND ended_at IS NOT NULL;

-- Delivered entries that are owed to the store again, because its server was replaced or restored:
-- those between these two sequences. They are put from the newest to the oldest, and `until` moves.
CREATE TABLE owed (behind INTEGER NOT NULL, until INTEGER NOT NULL);
