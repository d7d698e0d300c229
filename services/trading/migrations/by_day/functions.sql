-- Stores by day: what grows with traffic is kept in one partition for each UTC day of a time that travels with the record, so
-- that a year of it costs no more to write and to look at than a day (docs/adr/0012-stores-by-day.md). The same in both
-- applications; each one's own part follows in the same migration. Runs as trading_owner.

-- Milliseconds since 1970 at midnight UTC.
create function trading.day_ms(day date) returns bigint
language sql immutable strict parallel safe
return (day - date '1970-01-01')::bigint * 86400000;

-- The stores that are by day. Nobody but their owner writes it.
create table trading.stores_by_day (
    store   name   primary key,
    moment  name   not null,                    -- the column with the time, in milliseconds since 1970
    once    name[] not null                     -- columns of which each value is there once a day
);

-- The days that have partitions: the same of all stores, without a gap, so that they begin and end together.
create table trading.days (
    from_ms  bigint primary key,
    to_ms    bigint not null unique check (to_ms > from_ms),
    suffix   text   not null unique             -- of the partitions' names
);

-- Since when everything is there that was stored; 0 if nothing was dropped yet.
create view trading.kept as
    select case when exists (select from trading.days where suffix = 'before') then 0
                else coalesce((select min(from_ms) from trading.days), 0) end as since_ms;

-- A message that was set apart keeps its day from being dropped, until somebody says here that it needs it no more.
alter table trading.quarantine add column dealt_with timestamptz;

-- Whatever is unique stays so within a partition: an index of the whole table would have to hold the time too.
create function trading.make_unique(part name, once name[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    "column" name;
begin
    foreach "column" in array once loop
        execute format('create unique index on trading.%I (%I)', part, "column");
    end loop;
    -- Nobody writes into a partition by its own name, and without the guard nobody at all.
    perform region.protect(format('trading.%I', part)::regclass);
end
$$;

-- Turns a table into one by day, with everything that it holds as its first partition: nothing is copied. What a role may do
-- with the table it may do with the new one, and with no partition by its own name.
create function trading.by_day(store name, moment name, once name[], until_ms bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    before constant name := store || '_before';
    rest   constant name := store || '_rest';
    item   record;
    last   bigint;
begin
    execute format('alter table trading.%I rename to %I', store, before);
    execute format('create table trading.%I (like trading.%I including defaults including constraints including generated '
        'including comments including storage) partition by range (%I)', store, before, moment);
    for item in select attname from pg_attribute
                where attrelid = format('trading.%I', before)::regclass and attidentity <> '' and not attisdropped
    loop
        last := pg_sequence_last_value(pg_get_serial_sequence(format('trading.%I', before), item.attname)::regclass);
        execute format('alter table trading.%I alter column %I drop identity', before, item.attname);
        execute format('alter table trading.%I alter column %I add generated always as identity (start %s)',
            store, item.attname, coalesce(last, 0) + 1);
    end loop;
    -- Indexes that are not unique belong to the whole, and those that are there go with it.
    for item in select index.relname, pg_get_indexdef(index.oid) as definition
                from pg_index join pg_class as index on index.oid = indexrelid
                where indrelid = format('trading.%I', before)::regclass and not indisunique
    loop
        execute format('alter index trading.%I rename to %I', item.relname, item.relname || '_before');
        execute replace(item.definition, format('ON trading.%I USING', before), format('ON trading.%I USING', store));
    end loop;
    if not exists (select from pg_index join pg_attribute
                       on attrelid = indrelid and attnum = any(indkey[0:indnkeyatts - 1])
                   where indrelid = format('trading.%I', store)::regclass and attname = moment) then
        execute format('create index on trading.%I using brin (%I)', store, moment);
    end if;
    for item in select pg_get_userbyid(grantee) as grantee, privilege_type as privilege, '' as of
                from pg_class, aclexplode(relacl)
                where oid = format('trading.%I', before)::regclass and grantee <> relowner
                union all
                select pg_get_userbyid(grantee), privilege_type, format('(%I)', attname)
                from pg_attribute, aclexplode(attacl)
                where attrelid = format('trading.%I', before)::regclass
    loop
        execute format('grant %s %s on trading.%I to %I', item.privilege, item.of, store, item.grantee);
        execute format('revoke %s %s on trading.%I from %I', item.privilege, item.of, before, item.grantee);
    end loop;
    execute format('alter table trading.%I attach partition trading.%I for values from (minvalue) to (%s)',
        store, before, until_ms);
    -- What no day takes: no row fails for want of a partition.
    execute format('create table trading.%I partition of trading.%I default', rest, store);
    perform trading.make_unique(rest, once);
    perform region.protect(format('trading.%I', store)::regclass);
    insert into trading.stores_by_day (store, moment, once) values (store, moment, once);
end
$$;

-- The partition of a day. What came for it before it was there is moved into it.
create function trading.make_partition(store trading.stores_by_day, day trading.days) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    part constant name := store.store || '_' || day.suffix;
    rest constant name := store.store || '_rest';
    given text;
begin
    execute format('create table trading.%I (like trading.%I including defaults including constraints including generated '
        'including storage)', part, store.store);
    perform trading.make_unique(part, store.once);
    select string_agg(quote_ident(attname), ', ') into given from pg_attribute
        where attrelid = format('trading.%I', part)::regclass and attnum > 0 and not attisdropped and attgenerated = '';
    execute format('lock table trading.%I in access exclusive mode', rest);
    execute format('with moved as (delete from trading.%1$I where %2$I >= $1 and %2$I < $2 returning %4$s) '
        'insert into trading.%3$I (%4$s) select %4$s from moved', rest, store.moment, part, given)
        using day.from_ms, day.to_ms;
    execute format('alter table trading.%I attach partition trading.%I for values from (%s) to (%s)',
        store.store, part, day.from_ms, day.to_ms);
end
$$;

-- Takes all stores at once (not each partition, of which there may be many), before anything is changed: where a reader holds
-- one of them for long, this gives way, and the writers go on.
create function trading.lock_stores() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute (select 'lock table ' || string_agg(format('only trading.%I', store), ', ' order by store)
                 || ' in access exclusive mode' from trading.stores_by_day);
end
$$;

-- Goes on with partitions from the latest day to `until_ms`, `most` days of them in one transaction; how many it made. The
-- table of days is protected: without the guard this is refused.
create function trading.make_days_until(until_ms bigint, most integer) returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    made  integer := 0;
    next  bigint;
    day   trading.days;
    store trading.stores_by_day;
begin
    -- Whoever is at it already does the same.
    if not pg_try_advisory_xact_lock(29813, 0) then
        return 0;
    end if;
    loop
        select max(to_ms) into strict next from trading.days;
        exit when next >= until_ms or made >= most;
        perform trading.lock_stores();
        insert into trading.days (from_ms, to_ms, suffix)
            values (next, next + 86400000, to_char(date '1970-01-01' + (next / 86400000)::integer, '"d"YYYYMMDD'))
            returning * into day;
        for store in select * from trading.stores_by_day order by 1 loop
            perform trading.make_partition(store, day);
        end loop;
        made := made + 1;
    end loop;
    return made;
end
$$;

-- Drops the earliest day from all stores, if it ends by `limit_ms` and nothing of it is open. No row: no day is old enough.
create function trading.drop_day_until(limit_ms bigint) returns table (from_ms bigint, still_open text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    day   trading.days;
    store trading.stores_by_day;
begin
    if not pg_try_advisory_xact_lock(29813, 0) then
        return;
    end if;
    select * into day from trading.days as days order by days.from_ms limit 1;
    -- The latest one stays, whatever the clock says: the next days go on from it.
    if day.to_ms is null or day.to_ms > limit_ms
        or not exists (select from trading.days as days where days.from_ms >= day.to_ms) then
        return;
    end if;
    from_ms := day.from_ms;
    still_open := trading.open_before(day.to_ms);
    if still_open is null then
        perform trading.lock_stores();
        delete from trading.days as days where days.from_ms = day.from_ms;
        for store in select * from trading.stores_by_day order by 1 loop
            execute format('drop table trading.%I', store.store || '_' || day.suffix);
        end loop;
    end if;
    return next;
end
$$;

-- Deletes what came for days before `limit_ms`, which were dropped: `most` rows in one transaction; how many. Anything open keeps
-- it, as it keeps a day; both are seen by one statement, so what is decided meanwhile loses nothing. Inbound gives a message the
-- time of its own clock: such a time in its store is of a clock that is wrong, and the message may be new, so then all stay.
create function trading.delete_late_rows_until(limit_ms bigint, most integer) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    store   trading.stores_by_day;
    rest    name;
    came    boolean;
    deleted bigint := 0;
    gone    bigint;
begin
    if not pg_try_advisory_xact_lock(29813, 0) then
        return 0;
    end if;
    for store in select * from trading.stores_by_day as by_day where by_day.store in ('inbound_raw', 'returned_raw') loop
        execute format('select exists (select from trading.%I where %I < $1)', store.store || '_rest', store.moment)
            into came using limit_ms;
        if came then
            return 0;
        end if;
    end loop;
    for store in select * from trading.stores_by_day order by 1 loop
        rest := store.store || '_rest';
        execute format('select exists (select from trading.%I where %I < $1)', rest, store.moment) into came using limit_ms;
        continue when not came;
        execute format('delete from trading.%1$I where trading.open_before($1) is null and ctid = any(array( '
            'select ctid from trading.%1$I where %2$I < $1 limit $2))', rest, store.moment) using limit_ms, most - deleted;
        get diagnostics gone = row_count;
        deleted := deleted + gone;
    end loop;
    return deleted;
end
$$;

-- What core calls. They run as the owner and take nothing that could reach further than their purpose. The short wait for
-- each lock is for the stages, which wait behind it.
create function trading.make_days() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
as $$
begin
    return trading.make_days_until(trading.day_ms((clock_timestamp() at time zone 'UTC')::date + 8), 2);
end
$$;

create function trading.drop_day(keep_days integer) returns table (from_ms bigint, still_open text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
as $$
begin
    if keep_days is null or keep_days < 7 then
        raise exception using errcode = '22023',
            message = format('a store keeps at least 7 days, not %s', coalesce(keep_days::text, 'null')),
            hint = 'Set KEEP_DAYS to 7 or more, or to 0 to keep everything.';
    end if;
    return query select * from trading.drop_day_until(
        trading.day_ms((clock_timestamp() at time zone 'UTC')::date - keep_days));
end
$$;

create function trading.delete_late_rows() returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
as $$
begin
    return trading.delete_late_rows_until((select since_ms from trading.kept), 5000);
end
$$;

-- The earliest day that is kept, the end of the latest one that is made, and rows that are in none of them; of these no more
-- than 10000 of each store are counted.
create function trading.days_standing() returns table (oldest_ms bigint, made_until_ms bigint, outside bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    rest  name;
    found bigint;
begin
    select min(days.from_ms), max(days.to_ms) into oldest_ms, made_until_ms from trading.days as days;
    outside := 0;
    for rest in select store || '_rest' from trading.stores_by_day loop
        execute format('select count(*) from (select from trading.%I limit 10000) as counted', rest) into found;
        outside := outside + found;
    end loop;
    return next;
end
$$;
