
-- When inbound took the message that something follows from; of two reports that met, the later one. It is known to each stage
-- that repeats the row, and close to the time of the decision. What was decided before this migration has that of its report.
alter table trading.outbox add column caused_ms bigint;
alter table trading.outbox alter column caused_ms type bigint using received_ms, alter column caused_ms set not null;

-- Lists tell on which day the row is that they are about.
alter table trading.pending add column received_ms bigint;
alter table trading.unsent add column caused_ms bigint;
alter table trading.pending disable trigger region_guard;
alter table trading.unsent disable trigger region_guard;
alter table trading.unanswered disable trigger region_guard;
update trading.pending set received_ms = coalesce(
    (select raw.received_ms from trading.inbound_raw as raw where raw.record = pending.record),
    (extract(epoch from since) * 1000)::bigint);
insert into trading.unsent (seq) select seq from trading.outbox where sent_at is null on conflict do nothing;
update trading.unsent set caused_ms = outbox.caused_ms from trading.outbox where outbox.seq = unsent.seq;
delete from trading.unsent where caused_ms is null;
update trading.unanswered set caused_ms = outbox.caused_ms
    from trading.outbox where outbox.message_id = unanswered.message_id;
alter table trading.pending enable always trigger region_guard;
alter table trading.unsent enable always trigger region_guard;
alter table trading.unanswered enable always trigger region_guard;
alter table trading.pending alter column received_ms set not null;
alter table trading.unsent alter column caused_ms set not null;

-- The earliest answer that has not left this application's care: what is looked for since a mark is looked for since then too.
create view trading.oldest_answer as
    select least((select min(caused_ms) from trading.unsent), (select min(caused_ms) from trading.unanswered)) as caused_ms;
