-- host: the identity of the journal directory of the one host whose relproxies write this file.
CREATE TABLE host (identity TEXT NOT NULL);
