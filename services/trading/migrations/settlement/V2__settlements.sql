-- The settlement application: the two parties' settlements of each allocation. Runs as trading_owner.

-- Core: one row for each party's settlement of an allocation, with the message of the highest version.
create table trading.settlements (
    trade_date     date        not null,
    id             text        not null,        -- sender-im-broker-trade-allocation
    record         uuid        not null,
    received_ms    bigint      not null,
    im_id          varchar(20) not null,
    broker_id      varchar(20) not null,
    trade_id       varchar(10) not null,
    allocation_id  bigint      not null check (allocation_id > 0),
    settlement     text        not null,        -- as JSON
    status         text        not null check (status in ('UNMATCHED', 'MISMATCHED', 'SETTLED')),
    counterpart    text,
    version        integer     not null check (version > 0),
    epoch          bigint      not null,        -- under which it was last decided
    primary key (trade_date, id),
    check ((status = 'UNMATCHED') = (counterpart is null))
);
create index settlements_by_key on trading.settlements (im_id, broker_id, trade_id, trade_date);

select region.protect('trading.settlements');

grant select, insert on trading.settlements to trading_core;
grant update (record, received_ms, settlement, status, counterpart, version, epoch)
    on trading.settlements to trading_core;
-- A settlement that comes again is answered again.
grant select, update (sent_at) on trading.outgoing_settlements to trading_core;
-- Egress hands the returned settlements on: from then on they wait for trade matching's broker, in their own table.
grant select, delete on trading.unanswered to trading_egress;
