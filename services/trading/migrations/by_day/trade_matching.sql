
-- Trade matching: its own lists and stores.
alter table trading.returned_pending add column received_ms bigint;
alter table trading.returned_pending disable trigger region_guard;
update trading.returned_pending set received_ms = coalesce(
    (select raw.received_ms from trading.returned_raw as raw where raw.record = returned_pending.record),
    (extract(epoch from since) * 1000)::bigint);
alter table trading.returned_pending enable always trigger region_guard;
alter table trading.returned_pending alter column received_ms set not null;

-- A stage of the version before, which names no time, must not write any more. It tries again until it is replaced: this is no
-- error of the data, for which a row would be set apart.
create function trading.older_version() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = '55000', message = 'this store takes no rows of a stage of an older version',
        hint = 'It goes on when all stages are of the version that migrated the store.';
end
$$;

-- The time is that of the outbox. An answer's text begins with the customer's id, in which a quotation mark has a backslash before
-- it. The digest depends on each bit of a row; each part is the seed of the next, so that exchanged ones do not cancel out. By an
-- index with it two stores are compared without a look at their rows, which are twenty times as wide. The server computes it
-- whenever a row is written, whoever writes it.
alter table trading.egressed add column caused_ms bigint;
alter table trading.egressed alter column caused_ms type bigint using
    coalesce(substring(body from '"timestamp":([0-9]{1,15})')::bigint, (extract(epoch from at) * 1000)::bigint),
    alter column caused_ms set not null, alter column caused_ms set default trading.older_version(),
    add column digest bigint generated always as (hashtextextended(body, hashtextextended(status, hashtextextended(id,
        uuid_hash_extended(message_id, caused_ms))))) stored;
alter table trading.sent add column caused_ms bigint;
alter table trading.sent alter column caused_ms type bigint using
    coalesce(substring(body from '"timestamp":([0-9]{1,15})')::bigint, (extract(epoch from at) * 1000)::bigint),
    alter column caused_ms set not null, alter column caused_ms set default trading.older_version(),
    add column digest bigint generated always as (hashtextextended(body, hashtextextended(status, hashtextextended(id,
        uuid_hash_extended(message_id, caused_ms))))) stored;
drop index trading.egressed_by_time, trading.sent_by_time;
create index egressed_by_time on trading.egressed (at) include (caused_ms, message_id, digest);
create index sent_by_time on trading.sent (at) include (caused_ms, message_id, digest);

select trading.by_day(store, moment, once, (select max(to_ms) from trading.days))
  from (values ('returned_raw', 'received_ms', '{record}'::name[]),
               ('returned_ingested', 'received_ms', '{record}'), ('returned_nacks', 'received_ms', '{record}'),
               ('egressed', 'caused_ms', '{message_id}'), ('sent', 'caused_ms', '{message_id}')) as by_day (store, moment, once);

-- Trades stay one table: they are what tells a repeat from something new, however late it comes. Its indexes grow where today's
-- trades are.
drop index trading.trades_by_key;
create index trades_by_key on trading.trades (trade_date, im_id, broker_id, trade_id);
create index trades_waiting on trading.trades (trade_date, received_ms) where status = 'UNMATCHED';

-- A trade whose wait has ended has no counterpart.
alter table trading.trades drop constraint trades_status_check, drop constraint trades_check;
alter table trading.trades
    add constraint trades_status_check
        check (status in ('UNMATCHED', 'MATCHED', 'MISMATCHED', 'SETTLED', 'CANCELLED', 'EXPIRED')),
    add constraint trades_check check ((status in ('UNMATCHED', 'CANCELLED', 'EXPIRED')) = (counterpart is null));

-- What of the days before a moment is not done with, in words; null if nothing is.
create function trading.open_before(until_ms bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (select string_agg(what, ', ') from (
    select 'undecided messages' as what
        where exists (select from trading.pending where received_ms < until_ms)
           or exists (select from trading.returned_pending where received_ms < until_ms)
    union all select 'answers on their way'
        where (select caused_ms from trading.oldest_answer) < until_ms
    union all select 'unmatched trades'
        where exists (select from trading.trades where status = 'UNMATCHED' and received_ms < until_ms)
    union all select 'settlements that are still asked for'
        where exists (select from trading.unreturned join trading.outgoing_settlements using (message_id)
                      where since < to_timestamp(until_ms / 1000.0) and (due is not null or sent_at is null))
    union all select 'messages in quarantine'
        where exists (select from trading.quarantine where first_seen < to_timestamp(until_ms / 1000.0)
                      and (dealt_with is null or dealt_with < last_seen))) as open);
