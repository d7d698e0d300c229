-- Trade matching: what comes back from the settlement application, and what it makes of allocations and trades. Runs as
-- trading_owner.

-- A second line of messages, with the same stores as the first.
create table trading.returned_raw (like trading.inbound_raw including all);
create table trading.returned_pending (like trading.pending including all);
create table trading.returned_ingested (like trading.ingested including all);
create table trading.returned_nacks (like trading.nacks including all);

-- Core: every valid message that came back, once. One that fits nothing keeps the reason; one whose trade is not matched
-- yet is looked at again when it is.
create table trading.returned (
    record       uuid primary key,
    trade_date   date,                          -- null of a refusal: it does not say
    trade        text   not null,               -- the customer's id of the trade's side
    id           text   not null,               -- the settlement's
    received_ms  bigint not null,
    content      text   not null,               -- the message as JSON
    code         text,                          -- why it changed nothing; null if it counts
    epoch        bigint not null                -- under which it was last looked at
);
create index returned_too_early on trading.returned (trade_date, trade) where code = 'NOT_MATCHED';
create index returned_unfit on trading.returned (code) where code is not null;

-- Core: allocations whose settlement came back, with the latest status. An allocation without a row is unmatched.
create table trading.allocations (
    trade_date     date    not null,
    trade          text    not null,
    allocation_id  bigint  not null,
    account        text    not null,
    quantity       integer not null,
    status         text    not null check (status in ('UNMATCHED', 'MISMATCHED', 'SETTLED')),
    epoch          bigint  not null,
    primary key (trade_date, trade, allocation_id),
    foreign key (trade_date, trade) references trading.trades (trade_date, id)
);

-- Settlements that were made and have not come back. Egress adds, core takes away; outbound sends old ones again.
create table trading.unreturned (
    message_id  uuid primary key,
    since       timestamptz not null default clock_timestamp(),  -- when it was made, or last sent again
    attempts    integer     not null default 0                   -- how often it was sent again
);
create index unreturned_by_time on trading.unreturned (since);

alter table trading.trades drop constraint trades_status_check;
alter table trading.trades add constraint trades_status_check
    check (status in ('UNMATCHED', 'MATCHED', 'MISMATCHED', 'SETTLED', 'CANCELLED'));

select region.protect(('trading.' || name)::regclass)
  from unnest(array['returned_raw', 'returned_pending', 'returned_ingested', 'returned_nacks', 'returned',
                    'allocations', 'unreturned']) as name;

-- With what came back and is not applied yet.
create or replace view trading.backlog as
    select * from trading.on_its_way
    union all
    select 'settlements', count(*), extract(epoch from clock_timestamp() - min(since))::double precision
      from (select made_at as since from trading.outgoing_settlements where sent_at is null
            union all select since from trading.returned_pending) as settlements;

grant select, insert on trading.returned_raw to trading_inbound;
grant insert on trading.returned_pending to trading_inbound;
grant select, insert on trading.returned_ingested, trading.returned_nacks to trading_ingestion;
grant select on trading.returned_raw, trading.returned_ingested, trading.returned_nacks to trading_core;
grant select, delete, update (since) on trading.returned_pending to trading_core;
grant select, insert, update (code, epoch) on trading.returned to trading_core;
grant select, insert, update (status, epoch) on trading.allocations to trading_core;
grant select, insert on trading.unreturned to trading_egress;
grant select, delete, update (since) on trading.unreturned to trading_core;
grant select, update (since, attempts) on trading.unreturned to trading_outbound;
-- A refused settlement is known by its bytes.
grant select on trading.outgoing_settlements to trading_core;
