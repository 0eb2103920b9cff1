-- is_imported: the image was found in the registry, and its create never seen. Its grade says claimed,
-- because it counts as a claim does.
ALTER TABLE image_record ADD COLUMN is_imported INTEGER NOT NULL DEFAULT 0;
