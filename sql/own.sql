-- It runs with the rights of hubsyncd_owner, and nobody may call it; as a trigger it fires all the same.
GRANT CREATE ON SCHEMA hubsyncd TO hubsyncd_owner;
ALTER FUNCTION hubsyncd.{{function}}() OWNER TO hubsyncd_owner;
REVOKE CREATE ON SCHEMA hubsyncd FROM hubsyncd_owner;
REVOKE ALL ON FUNCTION hubsyncd.{{function}}() FROM PUBLIC;
