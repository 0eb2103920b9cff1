-- What a project claimed for its own image says nothing of it once it is another's. made_for: the
-- project that the record was put with.
CREATE OR REPLACE VIEW image_relation AS
    SELECT r.registry,
           COALESCE(i.name, r.image_id::text) AS image_id,
           to_char(to_timestamp(r.created_at + 1577836800) AT TIME ZONE 'UTC',
                   'YYYY-MM-DD"T"HH24:MI:SS') || r.created_suffix AS created_at,
           p.name AS project,
           CASE WHEN r.counts THEN r.installation END AS installation,
           CASE WHEN r.counts THEN COALESCE(n.name, r.instance_id::text) END AS instance_id,
           CASE WHEN r.counts THEN r.grade END AS grade,
           to_timestamp(r.recorded_at + 1577836800) AS recorded_at,
           to_timestamp(r.deleted_at + 1577836800) AS deleted_at,
           COALESCE(m.name, p.name) AS made_for
    FROM (SELECT r.*, s.registry, s.created_suffix, s.installation, s.grade,
                 s.grade = 'vouched' OR COALESCE(r.made_by, r.project_id) = r.project_id AS counts
          FROM any_image_record r
          JOIN source s ON s.id = r.source_id) r
    JOIN project p ON p.id = r.project_id
    LEFT JOIN project m ON m.id = r.made_by
    LEFT JOIN opaque_id i ON i.id = r.image_id
    LEFT JOIN opaque_id n ON n.id = r.instance_id;
