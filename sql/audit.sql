-- The audit log {{table}}: an entry names the row that it tells of, whether or not that row's table has triggers.
-- What is no key of that table is no row's name and is dropped here.
CREATE OR REPLACE FUNCTION hubsyncd.{{function}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' SET jit = off
AS {{tag}}
BEGIN
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        IF current_setting('hubsyncd.receipt', true) = 'on' THEN
            -- Written by an application's trigger because of our receipt: the receipt marks it.
            PERFORM set_config(
                'hubsyncd.entries',
                concat_ws(',',
                          nullif(current_setting('hubsyncd.entries', true), ''),
                          (SELECT string_agg(e.id::text, ',') FROM new_rows AS e)),
                true);
            RETURN NULL;
        END IF;
        INSERT INTO hubsyncd.change (object, key, op)
        SELECT named.object, named.key, 'U'
        FROM (
            {{named}}
        ) AS named (object, key)
        WHERE named.key IS NOT NULL;
        {{ring}}
    EXCEPTION WHEN OTHERS THEN
        BEGIN
            INSERT INTO hubsyncd.change (object, op)
            SELECT every.object, '*' FROM unnest(ARRAY[{{names}}]) AS every (object);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'hubsyncd could not note an audit entry: %', SQLERRM
                USING HINT = 'The next sweep will find its row. `hubsyncd check` says what is wrong.';
        END;
    END;
    RETURN NULL;
END
{{tag}};
{{own}}
