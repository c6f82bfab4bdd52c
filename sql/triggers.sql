-- {{object}}: the triggers on {{title}}.
CREATE OR REPLACE TRIGGER {{insert}} AFTER INSERT ON {{table}}
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION hubsyncd.{{function}}();
CREATE OR REPLACE TRIGGER {{update}} AFTER UPDATE ON {{table}}
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION hubsyncd.{{function}}();
CREATE OR REPLACE TRIGGER {{delete}} AFTER DELETE ON {{table}}
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION hubsyncd.{{function}}();
CREATE OR REPLACE TRIGGER {{truncate}} AFTER TRUNCATE ON {{table}}
    FOR EACH STATEMENT EXECUTE FUNCTION hubsyncd.{{function}}();
