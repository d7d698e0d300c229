-- What the keeper calls. Neither function takes the advisory lock: a fence must not starve renewal.

CREATE FUNCTION region.clock(OUT now timestamptz, OUT server_start timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT clock_timestamp(), pg_postmaster_start_time() $$;

-- Extends the lease to `observed_at` + lease_duration, never shortens it. `observed_at` and `server_start`
-- are what region.clock() answered before permission was asked for: an old observation, or a request that
-- was delayed, therefore reaches no further than what it saw. An expired lease of the present grant may be
-- renewed, also on a new server start. A limit that was asked for is set, unless the renewal is so late that
-- less than half of its duration would be left: the next one tries again. Gives the new end.
CREATE FUNCTION region.renew(app text, region text, epoch bigint, grant_id uuid,
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

GRANT EXECUTE ON FUNCTION region.clock() TO region_keeper, region_operator, region_writer;
GRANT EXECUTE ON FUNCTION region.renew(text, text, bigint, uuid, timestamptz, timestamptz) TO region_keeper;
