-- The trigger on the audit log {{title}}.
CREATE OR REPLACE TRIGGER {{insert}} AFTER INSERT ON {{table}}
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION hubsyncd.{{function}}();
