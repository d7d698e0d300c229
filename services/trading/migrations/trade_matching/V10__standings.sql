-- Trade matching: how many reports there are of each status, counted by the transactions that change
-- them, so that nobody has to read them all to know. Runs as trading_owner.

-- Not protected: no role may write it, only the trigger below does, in transactions that change protected rows.
create table trading.standings (
    slot    smallint not null,                  -- whose share; see trading.count_standings
    status  text     not null,
    reports bigint   not null,                  -- the share; less than nothing where others counted what is gone
    primary key (slot, status)
) with (fillfactor = 50);

-- Counts what a statement changed, whoever runs it, whatever the statement is. Each transaction has a slot to itself until
-- its end, so nobody waits for another one's count; there are 64, so the shares do not become more.
create function trading.count_standings() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    own smallint;
begin
    -- An insert that met only rows that were there has inserted nothing, and so on. Apart, because each trigger has only
    -- its own tables of what changed.
    if tg_op in ('INSERT', 'UPDATE') then
        if not exists (select from now_there) then return null; end if;
    elsif tg_op = 'DELETE' then
        if not exists (select from gone) then return null; end if;
    end if;
    for attempt in 0..63 loop
        own := (pg_backend_pid() + attempt) % 64;
        -- Any number that no other lock of this database uses. With all taken, the last one is shared.
        exit when pg_try_advisory_xact_lock(1937006958, own);
    end loop;
    if tg_op = 'INSERT' then
        insert into trading.standings as known (slot, status, reports)
        select own, status, count(*) from now_there group by status
        on conflict (slot, status) do update set reports = known.reports + excluded.reports;
    elsif tg_op = 'UPDATE' then
        insert into trading.standings as known (slot, status, reports)
        select own, status, sum(one) from (
            select status, 1 as one from now_there union all select status, -1 from gone) as changed
        group by status having sum(one) <> 0
        on conflict (slot, status) do update set reports = known.reports + excluded.reports;
    elsif tg_op = 'DELETE' then
        insert into trading.standings as known (slot, status, reports)
        select own, status, -count(*) from gone group by status
        on conflict (slot, status) do update set reports = known.reports + excluded.reports;
    else
        delete from trading.standings where slot >= 0;
        update trading.standings set reports = 0;
    end if;
    return null;
end
$$;

create trigger count_inserted after insert on trading.trades
    referencing new table as now_there for each statement execute function trading.count_standings();
create trigger count_updated after update on trading.trades
    referencing old table as gone new table as now_there for each statement execute function trading.count_standings();
create trigger count_deleted after delete on trading.trades
    referencing old table as gone for each statement execute function trading.count_standings();
create trigger count_truncated after truncate on trading.trades
    for each statement execute function trading.count_standings();

-- Counts all reports and mends the shares: for those that were there before, and after rows were changed behind the
-- triggers' back. One statement sees one snapshot, so nobody is held up and nothing that happens meanwhile is lost.
create function trading.recount() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select pg_advisory_xact_lock(1937006958, -1);
    insert into trading.standings as known (slot, status, reports)
    select -1, status, coalesce(stored.reports, 0) - coalesce(kept.reports, 0)
      from unnest(array['UNMATCHED', 'MATCHED', 'MISMATCHED', 'SETTLED', 'CANCELLED', 'EXPIRED']) as word (status)
      full join (select status, count(*) as reports from trading.trades group by status) as stored using (status)
      full join (select status, sum(reports)::bigint as reports from trading.standings group by status) as kept
          using (status)
    on conflict (slot, status) do update set reports = known.reports + excluded.reports;
$$;
revoke all on function trading.count_standings(), trading.recount() from public;

-- Nothing before the first recount: until then the shares are not all.
create view trading.breakdown as
    select status, sum(reports)::bigint as reports from trading.standings
     where exists (select from trading.standings where slot = -1) group by status;
grant select on trading.breakdown to trading_core;

-- The latest run at each boundary is asked for every few seconds.
create index reconciliations_by_job on trading.reconciliations (job, started);
