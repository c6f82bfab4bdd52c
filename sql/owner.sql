-- The role that owns the capture functions: they run with its rights, which are to append to hubsyncd.change and
-- nothing else. One per cluster, shared by every database that hubsyncd serves.
DO $owner$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'hubsyncd_owner') THEN
        BEGIN
            CREATE ROLE hubsyncd_owner NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- a setup in another database was faster
        END;
    END IF;
    -- Whoever gives a function to a role must be a member of it; a superuser is one of every role.
    IF NOT pg_catalog.pg_has_role(current_user, 'hubsyncd_owner', 'USAGE') THEN
        GRANT hubsyncd_owner TO CURRENT_USER;
    END IF;
END
$owner$;
