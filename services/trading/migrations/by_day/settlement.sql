
-- The settlement application. Settlements stay one table: they are what tells a repeat from something new, however late it
-- comes. Its indexes grow where today's settlements are.
drop index trading.settlements_by_key;
create index settlements_by_key on trading.settlements (trade_date, im_id, broker_id, trade_id);

-- What of the days before a moment is not done with, in words; null if nothing is. Nothing ends the wait of an unmatched
-- settlement, and its row stays, so it is no reason.
create function trading.open_before(until_ms bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (select string_agg(what, ', ') from (
    select 'undecided messages' as what
        where exists (select from trading.pending where received_ms < until_ms)
    union all select 'answers on their way'
        where (select caused_ms from trading.oldest_answer) < until_ms
    union all select 'settlements that are not sent back'
        where exists (select from trading.outgoing_settlements
                      where sent_at is null and made_at < to_timestamp(until_ms / 1000.0))
    union all select 'messages in quarantine'
        where exists (select from trading.quarantine where first_seen < to_timestamp(until_ms / 1000.0)
                      and (dealt_with is null or dealt_with < last_seen))) as open);
