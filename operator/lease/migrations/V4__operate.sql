-- What the operator calls. Each is a compare-and-set: it names what it believes, and repeating it is harmless.

-- Takes the application's lock exclusively: afterwards no guarded transaction is under way. A guarded
-- transaction ends by itself within longest_transaction(); whoever still holds the lock after that hangs,
-- and is ended. Gives up after three rounds.
CREATE FUNCTION region.lock_writers_out(app text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began   timestamptz;
    blocker record;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction',
            MESSAGE = 'this server is a standby; the lease is changed on the writer';
    END IF;
    -- The row is read after the lock was granted; an older snapshot would show it as it was before.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION USING ERRCODE = 'TR003', MESSAGE = 'the lease is changed under READ COMMITTED only';
    END IF;
    PERFORM set_config('lock_timeout', extract(epoch FROM region.longest_transaction()) || 's', true);
    FOR round IN 1..3 LOOP
        began := clock_timestamp();
        BEGIN
            PERFORM pg_advisory_xact_lock(region.lock_class(), region.lock_key(lock_writers_out.app));
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
        FOR blocker IN
            SELECT held.pid FROM pg_locks held
            LEFT JOIN pg_stat_activity session ON session.pid = held.pid
            WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 2
                AND held.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                AND held.classid = region.lock_class()::oid
                AND held.objid = (region.lock_key(lock_writers_out.app)::bigint & 4294967295)::oid
                AND coalesce(session.xact_start, '-infinity') < began
        LOOP
            IF blocker.pid IS NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'TR005',
                    MESSAGE = format('a prepared transaction holds the lock of %s', lock_writers_out.app),
                    HINT = 'See pg_prepared_xacts; commit or roll it back.';
            END IF;
            RAISE LOG 'region: ending session % that holds the lock of % for too long',
                blocker.pid, lock_writers_out.app;
            PERFORM pg_terminate_backend(blocker.pid);
        END LOOP;
    END LOOP;
    RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
        MESSAGE = format('writers of %s could not be locked out', lock_writers_out.app),
        HINT = 'See pg_locks for advisory locks of class 29810; try again.';
END
$$;

CREATE FUNCTION region.refuse(message text, hint text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'TR007', MESSAGE = refuse.message, HINT = refuse.hint;
END
$$;

-- Ends the grant: once this is committed, no write by it is accepted any more, and all that were accepted
-- are in the log before the row's change.
CREATE FUNCTION region.fence(app text, epoch bigint, grant_id uuid, run uuid, to_region text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease region.lease;
BEGIN
    -- Before writers are made to wait for nothing; what counts is asked again below.
    IF EXISTS (SELECT FROM region.aborted a WHERE a.app = fence.app AND a.run = fence.run) THEN
        RAISE EXCEPTION USING ERRCODE = 'TR008', MESSAGE = format('run %s was aborted', fence.run);
    END IF;
    PERFORM region.lock_writers_out(fence.app);
    SELECT l.* INTO lease FROM region.lease l WHERE l.app = fence.app FOR UPDATE;
    IF EXISTS (SELECT FROM region.aborted a WHERE a.app = fence.app AND a.run = fence.run) THEN
        RAISE EXCEPTION USING ERRCODE = 'TR008', MESSAGE = format('run %s was aborted', fence.run);
    END IF;
    IF lease.epoch = fence.epoch AND lease.grant_id = fence.grant_id AND lease.holder IS NULL
        AND (lease.released_epoch, lease.released_to, lease.released_run)
            IS NOT DISTINCT FROM (fence.epoch, fence.to_region, fence.run)
    THEN
        RETURN;
    END IF;
    IF lease.holder IS NULL OR lease.epoch IS DISTINCT FROM fence.epoch
        OR lease.grant_id IS DISTINCT FROM fence.grant_id OR lease.holder = fence.to_region
        OR num_nulls(fence.run, fence.to_region) > 0
    THEN
        PERFORM region.refuse(
            format('run %s can not hand grant %s of epoch %s to %s: the holder is %s, epoch %s, released to %s for run %s',
                fence.run, fence.grant_id, fence.epoch, fence.to_region, coalesce(lease.holder, 'nobody'),
                lease.epoch, lease.released_to, lease.released_run),
            'Read the lease again and decide anew.');
    END IF;
    UPDATE region.lease l
    SET holder = NULL, opened = 'none', valid_until = '-infinity',
        released_epoch = fence.epoch, released_to = fence.to_region, released_run = fence.run
    WHERE l.app = fence.app;
END
$$;

-- Gives a run up: it can never fence any more. Refused once it has fenced.
CREATE FUNCTION region.abort(app text, run uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
DECLARE
    lease region.lease;
BEGIN
    SELECT l.* INTO lease FROM region.lease l WHERE l.app = abort.app FOR UPDATE;
    IF lease.app IS NULL OR abort.run IS NULL OR lease.released_run = abort.run OR lease.granted_run = abort.run
    THEN
        PERFORM region.refuse(format('run %s of %s has fenced or granted already', abort.run, abort.app),
            'From here the run goes forward, or the target declines it.');
    END IF;
    INSERT INTO region.aborted (app, run) VALUES (abort.app, abort.run) ON CONFLICT DO NOTHING;
    UPDATE region.lease l SET aborted_run = abort.run WHERE l.app = abort.app;
END
$$;

-- Makes `region` the holder under a new epoch. The lease stays closed until a permitted renewal opens it.
CREATE FUNCTION region.grant(app text, from_epoch bigint, epoch bigint, grant_id uuid, region text, run uuid)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease region.lease;
BEGIN
    -- A transaction that was guarded just before the older grant ran out may still be committing.
    PERFORM region.lock_writers_out("grant".app);
    IF "grant".from_epoch = 0 THEN
        INSERT INTO region.lease (app) VALUES ("grant".app) ON CONFLICT DO NOTHING;
    END IF;
    SELECT l.* INTO lease FROM region.lease l WHERE l.app = "grant".app FOR UPDATE;
    IF lease.epoch = "grant".epoch AND lease.grant_id = "grant".grant_id AND lease.holder = "grant".region THEN
        RETURN;
    END IF;
    IF lease.epoch IS DISTINCT FROM "grant".from_epoch OR "grant".epoch IS NULL
        OR "grant".epoch <= "grant".from_epoch OR "grant".grant_id IS NULL OR "grant".region IS NULL
    THEN
        PERFORM region.refuse(format('%s is at epoch %s, not %s, so epoch %s can not follow for %s', "grant".app,
            lease.epoch, "grant".from_epoch, "grant".epoch, "grant".region), 'Read the lease again and decide anew.');
    END IF;
    -- An unlimited lease is taken back by its own holder only.
    IF lease.holder IS NOT NULL AND lease.valid_until > clock_timestamp()
        AND NOT (lease.valid_until = 'infinity' AND lease.holder = "grant".region)
    THEN
        PERFORM region.refuse(format('%s holds %s until %s', lease.holder, "grant".app, lease.valid_until),
            'Fence it, or wait until it has run out.');
    END IF;
    UPDATE region.lease l
    SET epoch = "grant".epoch, grant_id = "grant".grant_id, granted_run = "grant".run, holder = "grant".region,
        opened = 'core', valid_until = '-infinity', server_start = '-infinity', renewed_at = NULL
    WHERE l.app = "grant".app;
END
$$;

-- Lets the edge take what customers send, beside the core stages, which the first renewal of a grant opens. Only for the
-- present grant while it is valid.
CREATE FUNCTION region.open(app text, epoch bigint, grant_id uuid, opened region.opened) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
DECLARE
    lease region.lease;
BEGIN
    lease := region.present(open.app, open.epoch, open.grant_id);
    IF lease.opened = open.opened THEN
        RETURN;
    END IF;
    IF (lease.opened, open.opened) <> ('core', 'intake') THEN
        PERFORM region.refuse(format('%s can not go from %s to %s', open.app, lease.opened, open.opened),
            'It goes from core to intake; a fence or a grant closes.');
    END IF;
    UPDATE region.lease l SET opened = open.opened WHERE l.app = open.app;
END
$$;

-- The row, locked, when `grant_id` of `epoch` holds it and it is valid on this server start.
CREATE FUNCTION region.present(app text, epoch bigint, grant_id uuid) RETURNS region.lease
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease region.lease;
BEGIN
    SELECT l.* INTO lease FROM region.lease l WHERE l.app = present.app FOR UPDATE;
    IF lease.holder IS NULL OR lease.epoch IS DISTINCT FROM present.epoch
        OR lease.grant_id IS DISTINCT FROM present.grant_id
    THEN
        RAISE EXCEPTION USING ERRCODE = 'TR001',
            MESSAGE = format('grant %s of epoch %s does not hold the lease of %s: the holder is %s, epoch %s',
                present.grant_id, present.epoch, present.app, coalesce(lease.holder, 'nobody'), lease.epoch);
    END IF;
    IF lease.valid_until < 'infinity' AND lease.server_start <> pg_postmaster_start_time() THEN
        RAISE EXCEPTION USING ERRCODE = 'TR009', HINT = 'Wait for the next renewal.',
            MESSAGE = format('the lease of %s was not renewed since this server started', present.app);
    END IF;
    IF lease.valid_until <= clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'TR002', HINT = 'Wait for the next renewal.',
            MESSAGE = format('the lease of %s is not valid: its end is %s', present.app, lease.valid_until);
    END IF;
    RETURN lease;
END
$$;

-- Leaves the lease with its present holder for good, for the day when nobody is there to renew it. Refused
-- when it has run out: somebody else may have been given the right to write meanwhile. For people: what they do
-- here is not undone by itself.
CREATE FUNCTION region.release_unlimited(app text, epoch bigint, grant_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
BEGIN
    PERFORM region.present(release_unlimited.app, release_unlimited.epoch, release_unlimited.grant_id);
    UPDATE region.lease l SET valid_until = 'infinity', way_back = 'none' WHERE l.app = release_unlimited.app;
END
$$;

-- Leaves the lease without a limit, as release_unlimited does for people, and leaves the way back open.
CREATE FUNCTION region.hand_back(app text, epoch bigint, grant_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
DECLARE
    lease region.lease;
BEGIN
    lease := region.present(hand_back.app, hand_back.epoch, hand_back.grant_id);
    IF lease.valid_until < 'infinity' OR lease.way_back = 'asked' THEN
        UPDATE region.lease l SET valid_until = 'infinity', way_back = 'open' WHERE l.app = hand_back.app;
    END IF;
END
$$;

-- Asks for a limit again. The keeper's next permitted renewal sets it: at no moment has the lease an end that
-- nobody moves on.
CREATE FUNCTION region.limit_again(app text, epoch bigint, grant_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
DECLARE
    lease region.lease;
BEGIN
    lease := region.present(limit_again.app, limit_again.epoch, limit_again.grant_id);
    IF lease.valid_until = 'infinity' AND lease.way_back = 'none' THEN
        PERFORM region.refuse(format('the lease of %s was left without a limit by a person', limit_again.app),
            'A switch to the other region begins renewed leases again.');
    END IF;
    UPDATE region.lease l SET way_back = 'asked' WHERE l.app = limit_again.app AND l.valid_until = 'infinity';
END
$$;

GRANT EXECUTE ON FUNCTION region.fence(text, bigint, uuid, uuid, text) TO region_operator;
GRANT EXECUTE ON FUNCTION region.abort(text, uuid) TO region_operator;
GRANT EXECUTE ON FUNCTION region.grant(text, bigint, bigint, uuid, text, uuid) TO region_operator;
GRANT EXECUTE ON FUNCTION region.open(text, bigint, uuid, region.opened) TO region_operator;
GRANT EXECUTE ON FUNCTION region.release_unlimited(text, bigint, uuid) TO region_operator;
GRANT EXECUTE ON FUNCTION region.hand_back(text, bigint, uuid) TO region_operator;
GRANT EXECUTE ON FUNCTION region.limit_again(text, bigint, uuid) TO region_operator;
