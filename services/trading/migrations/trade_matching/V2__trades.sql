-- Trade matching: trades and the customers' answers. Runs as trading_owner.

-- Core: one row a side, with the report of the highest version. The customer's id is unique within a business date.
create table trading.trades (
    trade_date       date          not null,
    id               text          not null,
    record           uuid          not null,
    received_ms      bigint        not null,
    sender_id        varchar(20)   not null,
    im_id            varchar(20)   not null,
    broker_id        varchar(20)   not null,
    trade_id         varchar(10)   not null,
    security         varchar(10)   not null,
    indicator        char(1)       not null check (indicator in ('B', 'S')),
    price            numeric(10,2) not null check (price > 0),
    quantity         integer       not null check (quantity > 0),
    settlement_date  date          not null,
    trade            text          not null,
    status           text          not null
                     check (status in ('UNMATCHED', 'MATCHED', 'MISMATCHED', 'CANCELLED')),
    counterpart      text,
    version          integer       not null check (version > 0),
    epoch            bigint        not null,    -- under which it was last decided
    primary key (trade_date, id),
    check ((status in ('UNMATCHED', 'CANCELLED')) = (counterpart is null))
);
create index trades_by_key on trading.trades (im_id, broker_id, trade_id, trade_date);

-- Egress: answers as the customer sees them.
create table trading.egressed (
    message_id  uuid primary key,
    id          text not null,
    status      text not null,
    body        text not null,
    at          timestamptz not null default clock_timestamp()
);

-- Outbound: answers that were given to the customers' queue, or are about to be.
create table trading.sent (
    message_id  uuid primary key,
    id          text not null,
    status      text not null,
    body        text not null,
    at          timestamptz not null default clock_timestamp()
);

select region.protect(('trading.' || name)::regclass) from unnest(array['trades', 'egressed', 'sent']) as name;

grant select, insert on trading.trades to trading_core;
grant update (record, received_ms, security, indicator, price, quantity, settlement_date, trade, status,
              counterpart, version, epoch) on trading.trades to trading_core;
grant select, insert on trading.egressed to trading_egress;
grant select, insert on trading.sent to trading_outbound;
grant select, delete on trading.unanswered to trading_outbound;
-- Replay reads what egress stored.
grant select on trading.egressed to trading_core;
