
-- Today, and tomorrow for a clock that is ahead, and everything before them: one partition.
insert into trading.days (from_ms, to_ms, suffix)
    select first - first % 86400000,
           greatest(trading.day_ms((now() at time zone 'UTC')::date + 2), last - last % 86400000 + 86400000), 'before'
      from (select coalesce(min(received_ms), (extract(epoch from now()) * 1000)::bigint) as first,
                   coalesce(max(received_ms), 0) as last
              from trading.inbound_raw) as received;

select trading.by_day(store, moment, once, (select max(to_ms) from trading.days))
  from (values ('inbound_raw', 'received_ms', '{record}'::name[]),
               ('ingested', 'received_ms', '{record}'), ('nacks', 'received_ms', '{record}'),
               ('conflicts', 'received_ms', '{record}'),
               ('outbox', 'caused_ms', '{message_id, seq}')) as by_day (store, moment, once);
