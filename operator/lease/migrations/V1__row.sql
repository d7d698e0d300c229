-- The lease: one row for each application, in the application's own database. Runs as region_owner.
-- Nobody but the functions of this schema writes it.

ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE ALL ON SCHEMA region FROM PUBLIC;
GRANT USAGE ON SCHEMA region TO region_keeper, region_operator, region_writer;

CREATE TYPE region.opened AS ENUM ('none', 'core', 'intake');
-- The way back from a lease without a limit.
-- none: the lease has a limit, or a person took it away, which is not undone by itself.
-- open: handed back without a limit; whoever manages the application again may ask for one.
-- asked: the next permitted renewal sets it.
CREATE TYPE region.way_back AS ENUM ('none', 'open', 'asked');

CREATE TABLE region.lease (
    app            text PRIMARY KEY CHECK (app <> ''),
    epoch          bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    grant_id       uuid,
    -- The run that the present grant was made for.
    granted_run    uuid,
    -- The region that may write; null: nobody.
    holder         text CHECK (holder <> ''),
    opened         region.opened NOT NULL DEFAULT 'none',
    valid_until    timestamptz NOT NULL DEFAULT '-infinity',
    way_back       region.way_back NOT NULL DEFAULT 'none',
    -- The start of the database server that the last renewal saw. A guard on any other start is refused.
    server_start   timestamptz NOT NULL DEFAULT '-infinity',
    -- The observation that the last renewal rests on.
    renewed_at     timestamptz,
    -- How far past its observation a renewal reaches (D of the protocol).
    lease_duration interval NOT NULL DEFAULT '20 s'
                   CHECK (lease_duration BETWEEN interval '1 s' AND interval '60 s'),
    -- The last fence: which epoch it ended, to whom it gives, for which run.
    released_epoch bigint,
    released_to    text,
    released_run   uuid,
    -- The last run that was given up before its fence; all of them are in region.aborted.
    aborted_run    uuid,
    CHECK (num_nulls(released_epoch, released_to, released_run) IN (0, 3)),
    CHECK (holder IS NULL OR grant_id IS NOT NULL),
    CHECK (holder IS NOT NULL OR (opened = 'none' AND valid_until = '-infinity'))
);
COMMENT ON TABLE region.lease IS 'Who may write for each application, and until when. Written by functions only.';
GRANT SELECT ON region.lease TO region_keeper, region_operator, region_writer;

-- A lease with a limit has no way back to one: whatever sets one, a renewal, a fence or a grant, closes it.
CREATE FUNCTION region.close_way_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.way_back := 'none';
    RETURN NEW;
END
$$;
CREATE TRIGGER close_way_back BEFORE UPDATE ON region.lease
    FOR EACH ROW WHEN (NEW.valid_until < 'infinity') EXECUTE FUNCTION region.close_way_back();

CREATE TABLE region.aborted (
    app        text NOT NULL,
    run        uuid NOT NULL,
    aborted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app, run)
);
COMMENT ON TABLE region.aborted IS 'Runs that may never fence any more, however late their request arrives.';

-- Signs the marker that a guard leaves for the triggers. Readable by the owner alone.
CREATE TABLE region.secret (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    bytes    bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
INSERT INTO region.secret DEFAULT VALUES;

-- The longest that a guarded transaction may last (S of the protocol).
CREATE FUNCTION region.longest_transaction() RETURNS interval
LANGUAGE sql IMMUTABLE RETURN interval '5 s';

-- Class of the advisory locks of this schema ("tr"); the second key is the application's hash. Two
-- applications of one hash only wait for each other more than they need.
CREATE FUNCTION region.lock_class() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 29810;
CREATE FUNCTION region.lock_key(app text) RETURNS integer LANGUAGE sql IMMUTABLE RETURN hashtext(app);

-- Adds an application without any holder, or changes how long its renewals reach. For migrators.
CREATE FUNCTION region.enroll(app text, lease_duration interval DEFAULT '20 s') RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO region.lease AS l (app, lease_duration) VALUES ($1, $2)
    ON CONFLICT ON CONSTRAINT lease_pkey DO UPDATE SET lease_duration = excluded.lease_duration
$$;
