-- imported: the image was found in the registry, and its create never seen. Such a record may have no
-- instance, and then its source has a grade all the same.
ALTER TABLE source DROP CONSTRAINT source_grade_check;
ALTER TABLE source DROP CONSTRAINT source_check;
ALTER TABLE source ADD CHECK (grade IN ('vouched', 'claimed', 'imported'));
ALTER TABLE source ADD CHECK (CASE WHEN grade = 'imported' THEN true
                                   ELSE (installation IS NULL) = (grade IS NULL) END);
