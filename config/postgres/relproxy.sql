-- A role and a database of relproxy's own, to be run once by a superuser. The tables come from
-- `relproxy migrate`. Then, in psql: \password relproxy
CREATE ROLE relproxy LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
-- Names of projects are compared byte by byte.
CREATE DATABASE relproxy OWNER relproxy ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
REVOKE ALL ON DATABASE relproxy FROM PUBLIC;
-- Each worker of each relproxy has store.connections at most: 3 relproxies of 2 workers, 8 each, and
-- some room for people.
ALTER ROLE relproxy CONNECTION LIMIT 64;
-- A record is on the disk before a client reads its 201.
ALTER DATABASE relproxy SET synchronous_commit = on;
