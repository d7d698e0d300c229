-- The way back from an unlimited lease that a deleted object left. The operator of the object that follows asks for a limit,
-- and the keeper's next permitted renewal sets it: at no moment has the lease an end that nobody moves on.

CREATE TYPE region.way_back AS ENUM ('none', 'open', 'asked');

-- none: the lease has a limit, or a person took it away, which is not undone by itself.
-- open: handed back without a limit; whoever manages the application again may ask for one.
-- asked: the next permitted renewal sets it.
ALTER TABLE region.lease ADD COLUMN way_back region.way_back NOT NULL DEFAULT 'none';

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

-- As in V4. What a person does here is not undone by itself.
CREATE OR REPLACE FUNCTION region.release_unlimited(app text, epoch bigint, grant_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s'
AS $$
BEGIN
    PERFORM region.present(release_unlimited.app, release_unlimited.epoch, release_unlimited.grant_id);
    UPDATE region.lease l SET valid_until = 'infinity', way_back = 'none' WHERE l.app = release_unlimited.app;
END
$$;

-- As in V3, and it sets the limit that was asked for. A renewal so late that less than half of its duration would be left
-- does not; the next one tries again.
CREATE OR REPLACE FUNCTION region.renew(app text, region text, epoch bigint, grant_id uuid,
                                        observed_at timestamptz, server_start timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
DECLARE
    renewed_until timestamptz;
BEGIN
    IF renew.server_start IS DISTINCT FROM pg_postmaster_start_time() THEN
        RAISE EXCEPTION USING ERRCODE = 'TR009',
            MESSAGE = format('observed on the server start %s, but this server started at %s',
                renew.server_start, pg_postmaster_start_time()),
            HINT = 'Read region.clock() again, then ask for permission, then renew.';
    END IF;
    IF renew.observed_at IS NULL OR renew.observed_at > clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('observed_at %s is not in the past of this database', renew.observed_at),
            HINT = 'Pass what region.clock() of this database answered.';
    END IF;
    UPDATE region.lease l
    SET valid_until  = CASE
            WHEN l.way_back = 'asked' AND renew.observed_at + l.lease_duration / 2 > clock_timestamp()
            THEN renew.observed_at + l.lease_duration
            ELSE greatest(l.valid_until, renew.observed_at + l.lease_duration)
        END,
        renewed_at   = greatest(l.renewed_at, renew.observed_at),
        server_start = renew.server_start
    WHERE l.app = renew.app AND l.holder = renew.region AND l.epoch = renew.epoch
        AND l.grant_id = renew.grant_id
    RETURNING l.valid_until INTO renewed_until;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TR001',
            MESSAGE = format('%s in %s does not hold the lease by grant %s of epoch %s',
                renew.app, renew.region, renew.grant_id, renew.epoch),
            HINT = 'Stop renewing this grant; read the lease again.';
    END IF;
    RETURN renewed_until;
END
$$;

-- A lease with a limit has no way back to one: whatever sets one, a renewal, a fence or a grant, closes it.
CREATE FUNCTION region.close_way_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.way_back := 'none';
    RETURN NEW;
END
$$;
CREATE TRIGGER close_way_back BEFORE UPDATE ON region.lease
    FOR EACH ROW WHEN (NEW.valid_until < 'infinity') EXECUTE FUNCTION region.close_way_back();

GRANT EXECUTE ON FUNCTION region.hand_back(text, bigint, uuid) TO region_operator;
GRANT EXECUTE ON FUNCTION region.limit_again(text, bigint, uuid) TO region_operator;
