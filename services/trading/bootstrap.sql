-- Run before the migrations, every time: does nothing where its work is done already. Login roles are made
-- without a password. A migrator without the right to create roles needs them made beforehand.
DO $$
DECLARE
    wanted record;
    stage  text;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES ('trading_owner', 'NOLOGIN'), ('trading_inbound', 'LOGIN'),
                              ('trading_ingestion', 'LOGIN'), ('trading_core', 'LOGIN'),
                              ('trading_egress', 'LOGIN'), ('trading_outbound', 'LOGIN'),
                              ('trading_peer', 'LOGIN')) AS role(name, login)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE format('CREATE ROLE %I %s', wanted.name, wanted.login);
        END IF;
    END LOOP;
    FOREACH stage IN ARRAY ARRAY['trading_inbound', 'trading_ingestion', 'trading_core', 'trading_egress',
                                 'trading_outbound'] LOOP
        IF NOT pg_has_role(stage, 'region_writer', 'MEMBER') THEN
            EXECUTE format('GRANT region_writer TO %I', stage);
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'trading_owner', 'SET') THEN
        EXECUTE format('GRANT trading_owner TO %I', current_user);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'trading') THEN
        CREATE SCHEMA trading AUTHORIZATION trading_owner;
    END IF;
END
$$;
-- What a table's owner needs in order to protect it.
SET ROLE region_owner;
GRANT USAGE ON SCHEMA region TO trading_owner;
GRANT EXECUTE ON FUNCTION region.protect(regclass), region.demand_guard() TO trading_owner;
-- The other application's reconciliation may ask who holds the lease. It is no writer.
GRANT USAGE ON SCHEMA region TO trading_peer;
GRANT SELECT ON region.lease TO trading_peer;
RESET ROLE;
