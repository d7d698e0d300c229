-- What every writer passes through.

-- The marker that a guard leaves in the transaction: its id, the claim, and a signature over both.
CREATE FUNCTION region.sign(payload text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    secret bytea;
BEGIN
    SELECT s.bytes INTO STRICT secret FROM region.secret s;
    RETURN encode(sha256(secret || sha256(secret || convert_to(payload, 'UTF8'))), 'hex');
END
$$;

-- Refuses unless `region` holds the lease by this grant, the lease was renewed on this very server start,
-- and it is still valid. Takes the application's lock as shared until the transaction ends, so whoever
-- holds it exclusively knows that no guarded transaction is under way.
CREATE FUNCTION region.judge(app text, region text, epoch bigint, grant_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease  region.lease;
    longest CONSTANT interval := region.longest_transaction();
    timeout CONSTANT interval := current_setting('transaction_timeout')::interval;
BEGIN
    -- An older snapshot would not see a fence that it waited for.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION USING ERRCODE = 'TR003',
            MESSAGE = format('a guarded transaction may not be %s', current_setting('transaction_isolation')),
            HINT = 'Use READ COMMITTED.';
    END IF;
    IF timeout <= interval '0' OR timeout > longest OR clock_timestamp() - now() > longest THEN
        RAISE EXCEPTION USING ERRCODE = 'TR004',
            MESSAGE = format('a guarded transaction needs a transaction_timeout above 0 and up to %s: it is %s, '
                'and the transaction is %s old', longest, timeout, clock_timestamp() - now()),
            HINT = 'Set transaction_timeout before the transaction begins, and make the transaction shorter.';
    END IF;

    -- Two statements: the second one's snapshot is taken after the lock was granted.
    PERFORM pg_advisory_xact_lock_shared(region.lock_class(), region.lock_key(judge.app));
    SELECT l.* INTO lease FROM region.lease l WHERE l.app = judge.app;

    IF lease.holder IS DISTINCT FROM judge.region OR lease.epoch IS DISTINCT FROM judge.epoch
        OR lease.grant_id IS DISTINCT FROM judge.grant_id
    THEN
        RAISE EXCEPTION USING ERRCODE = 'TR001',
            MESSAGE = format('%s in %s does not hold the lease by grant %s of epoch %s: the holder is %s, epoch %s',
                judge.app, judge.region, judge.grant_id, judge.epoch,
                coalesce(lease.holder, 'nobody'), coalesce(lease.epoch, 0)),
            HINT = 'Stop writing and put the work back; read the lease again.';
    END IF;
    -- An unlimited lease has no renewer who could learn of a new start.
    IF lease.valid_until < 'infinity' AND lease.server_start <> pg_postmaster_start_time() THEN
        RAISE EXCEPTION USING ERRCODE = 'TR009',
            MESSAGE = format('the lease of %s was not renewed since this server started at %s',
                judge.app, pg_postmaster_start_time()),
            HINT = 'Wait for the next renewal.';
    END IF;
    IF lease.valid_until <= clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'TR002',
            MESSAGE = format('the lease of %s in %s ran out at %s', judge.app, judge.region, lease.valid_until),
            HINT = 'Stop writing and put the work back until the lease is renewed.';
    END IF;
END
$$;

-- Begins every writing transaction, and is its last statement before COMMIT. The caller names its region
-- from its own configuration, never from the row.
CREATE FUNCTION region.guard(app text, region text, epoch bigint, grant_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    claim  CONSTANT text := json_build_array(
        pg_current_xact_id()::text, guard.app, guard.region, guard.epoch, guard.grant_id)::text;
    marker CONSTANT text := region.sign(claim) || claim;
    remaining integer;
BEGIN
    PERFORM region.judge(guard.app, guard.region, guard.epoch, guard.grant_id);
    IF current_setting('region.marker', true) = marker THEN
        RETURN;
    END IF;
    -- Setting the timeout inside a transaction does not move a timer that already runs, so the session's
    -- timer may still be a longer one. Off and on again, for what is left since the transaction's begin.
    remaining := ceil(1000 * extract(epoch FROM least(
        current_setting('transaction_timeout')::interval,
        region.longest_transaction() - (clock_timestamp() - now()))));
    PERFORM set_config('transaction_timeout', '0', true);
    PERFORM set_config('transaction_timeout', greatest(remaining, 1) || 'ms', true);
    -- PostgreSQL refuses to prepare a transaction that exported its snapshot, and nothing undoes the export.
    -- A prepared transaction could be committed at any later time, whatever the lease says by then.
    IF current_setting('max_prepared_transactions')::integer > 0 THEN
        PERFORM pg_export_snapshot();
    END IF;
    PERFORM set_config('region.marker', marker, true);
END
$$;

-- Trigger of every business table. The marker shows that the guard ran in this transaction; its claim is
-- then judged afresh, because a savepoint may have rolled the guard's lock back.
CREATE FUNCTION region.demand_guard() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    marker CONSTANT text := coalesce(current_setting('region.marker', true), '');
    payload CONSTANT text := substr(marker, 65);
    claim  json;
BEGIN
    IF marker <> '' AND left(marker, 64) = region.sign(payload) THEN
        claim := payload::json;
    END IF;
    IF (claim ->> 0) IS DISTINCT FROM pg_current_xact_id()::text THEN
        RAISE EXCEPTION USING ERRCODE = 'TR006',
            MESSAGE = format('%s on %s.%s without the guard', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
            HINT = 'Begin the transaction with region.guard(app, region, epoch, grant_id).';
    END IF;
    PERFORM region.judge(claim ->> 1, claim ->> 2, (claim ->> 3)::bigint, (claim ->> 4)::uuid);
    RETURN NULL;
END
$$;

-- Puts the trigger on a table; again is harmless. Runs with the caller's rights: only an owner of the table
-- can. ALWAYS, so that session_replication_role does not switch it off.
CREATE FUNCTION region.protect("table" regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER region_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE '
        'ON %s FOR EACH STATEMENT EXECUTE FUNCTION region.demand_guard()', "table");
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER region_guard', "table");
END
$$;

GRANT EXECUTE ON FUNCTION region.guard(text, text, bigint, uuid) TO region_writer;
