-- Run before the migrations, every time, so each part does nothing where its work is done already.
-- Login roles are made without a password: whoever installs the database sets passwords or other means to
-- log in. A migrator without the right to create roles needs them made beforehand (see docs/wiring.md).
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES ('region_owner', 'NOLOGIN'), ('region_keeper', 'LOGIN'),
                              ('region_operator', 'LOGIN'), ('region_writer', 'NOLOGIN')) AS role(name, login)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE format('CREATE ROLE %I %s', wanted.name, wanted.login);
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'region_owner', 'SET') THEN
        EXECUTE format('GRANT region_owner TO %I', current_user);
    END IF;
    -- The fence, which runs as the owner, sees and ends the sessions that stand in its way. Who looks for what holds a fence up does
    -- so as the operator's role, which sees them too.
    FOR wanted IN
        SELECT predefined FROM unnest(ARRAY['pg_monitor', 'pg_signal_backend']) AS predefined
    LOOP
        IF NOT pg_has_role('region_owner', wanted.predefined, 'USAGE') THEN
            EXECUTE format('GRANT %I TO region_owner', wanted.predefined);
        END IF;
    END LOOP;
    IF NOT pg_has_role('region_operator', 'pg_monitor', 'USAGE') THEN
        GRANT pg_monitor TO region_operator;
    END IF;
    IF pg_has_role('region_operator', 'pg_signal_backend', 'USAGE') THEN
        REVOKE pg_signal_backend FROM region_operator;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'region') THEN
        CREATE SCHEMA region AUTHORIZATION region_owner;
    END IF;
END
$$;
