-- {{object}}: a change of {{table}} names its row in hubsyncd.change.
--
-- It never fails the statement: what goes wrong inside the block becomes a row `*` ("sweep this object"), and if even
-- that cannot be written, a warning. It waits for nobody but one who locks the queue itself (REINDEX, VACUUM FULL),
-- and half a second at most. Without `jit = off` a bulk statement is a third slower: the plan is compiled each time.
-- Every column stands behind `o.` or `n.`, so no name of a column can be mistaken for a variable.
CREATE OR REPLACE FUNCTION hubsyncd.{{function}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' SET jit = off
AS {{tag}}
BEGIN
    -- A transaction without an id has changed no row. One that has an id took it before any seq below, on which
    -- the daemon's low-water mark relies.
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO hubsyncd.change (object, key, op)
            SELECT {{name}}, n.{{key}}::text, 'I'
            FROM new_rows AS n
            WHERE n.{{key}} IS NOT NULL;
        ELSIF TG_OP = 'UPDATE' THEN
            -- A full join, because the plan is kept: any other join that was planned for a statement over one row
            -- would turn the next one, over a hundred thousand, quadratic. It also shows a changed key: D and I.
            INSERT INTO hubsyncd.change (object, key, op, hubspot_id)
            SELECT {{name}},
                   coalesce(n.{{key}}, o.{{key}})::text,
                   CASE WHEN n.{{key}} IS NULL THEN 'D'
                        WHEN o.{{key}} IS NULL THEN 'I'
                        -- What does not begin with a blank is not blank: it need not be trimmed to see that.
                        WHEN n.{{id}} COLLATE "C" >= '!' THEN 'U'
                        WHEN coalesce(btrim(n.{{id}}), '') = '' THEN 'N'
                        ELSE 'U'
                   END::"char",
                   CASE WHEN n.{{key}} IS NULL THEN nullif(btrim(o.{{id}}), '') END
            FROM old_rows AS o
            FULL JOIN new_rows AS n USING ({{key}})
            WHERE coalesce(n.{{key}}, o.{{key}}) IS NOT NULL
              AND (n.{{key}} IS NULL
                   OR o.{{key}} IS NULL
                   {{changed}});
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO hubsyncd.change (object, key, op, hubspot_id)
            SELECT {{name}}, o.{{key}}::text, 'D', nullif(btrim(o.{{id}}), '')
            FROM old_rows AS o
            WHERE o.{{key}} IS NOT NULL;
        ELSE
            INSERT INTO hubsyncd.change (object, op) VALUES ({{name}}, 'T');
        END IF;
        {{ring}}
    EXCEPTION WHEN OTHERS THEN
        BEGIN
            INSERT INTO hubsyncd.change (object, op) VALUES ({{name}}, '*');
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'hubsyncd could not note a change of %: %', {{name}}, SQLERRM
                USING HINT = 'The next sweep will find it. `hubsyncd check` says what is wrong.';
        END;
    END;
    RETURN NULL;
END
{{tag}};
{{own}}
