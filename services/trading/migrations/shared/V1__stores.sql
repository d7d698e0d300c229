-- The stores that both applications have, each in its own database: from a message as it came to what was decided
-- about it. Every business table is protected: a writing transaction that did not pass
-- region.guard is refused, whoever runs it. Runs as trading_owner, in the schema that the bootstrap made.

-- Inbound: every message as it came, before it is acknowledged.
create table trading.inbound_raw (
    record          uuid primary key,           -- a digest of correlation id and body
    correlation_id  text   not null,
    received_ms     bigint not null,            -- milliseconds since 1970, at the gateway
    body            bytea  not null,            -- the beginning only when the message was oversized
    defect          text                        -- JSON of the refusal, when no parsing is needed to know it
);

-- Stored by inbound, not decided by core: what is on its way. Inbound adds, core takes away.
create table trading.pending (
    record  uuid primary key,
    since   timestamptz not null default clock_timestamp()
);

-- What cannot be attributed to anybody, of all stages.
create table trading.quarantine (
    digest      uuid primary key,
    stage       text   not null,
    reason      text   not null,
    seen        bigint not null default 1,
    first_seen  timestamptz not null default clock_timestamp(),
    last_seen   timestamptz not null default clock_timestamp(),
    bytes       bigint not null,                -- true length
    body        bytea  not null                 -- at most the first 64 KiB
);

-- Ingestion: what passed validation.
create table trading.ingested (
    record       uuid primary key,
    id           text   not null,
    received_ms  bigint not null,
    content      text   not null                -- the validated trade or settlement as JSON
);

-- Ingestion: refused messages. Their ids are those of records, not of what they are about.
create table trading.nacks (
    record       uuid primary key,
    id           text   not null,
    received_ms  bigint not null,
    code         text   not null,
    field        text,
    description  text   not null,
    refusal      text   not null,
    body         text   not null
);

-- Core: reports refused because of one with the same id and date that was there first: another one of the same version
-- (CONFLICT), one of a higher version (SUPERSEDED), or one that had been decided (TOO_LATE).
create table trading.conflicts (
    record       uuid primary key,
    trade_date   date   not null,
    id           text   not null,
    received_ms  bigint not null,
    content      text   not null,
    code         text   not null
);

-- Core: what was decided and is to be told, written with the decision, sent on by the relay.
create table trading.outbox (
    seq          bigint generated always as identity primary key,
    message_id   uuid   not null unique,
    id           text   not null,
    received_ms  bigint not null,
    status       text   not null,
    body         text   not null,               -- the decision as JSON
    epoch        bigint not null,
    sent_at      timestamptz                    -- to egress
);
create index outbox_unsent on trading.outbox (seq) where sent_at is null;

-- Decided by core, and not yet where it leaves this application's care: answers on their way. Core adds; the stage that
-- hands them on takes away.
create table trading.unanswered (
    message_id  uuid primary key,
    since       timestamptz not null default clock_timestamp(),
    caused_ms   bigint not null                 -- when inbound took the message that the answer follows from
);

-- Settlements for the other application: written unsent by egress, sent by outbound whenever that application's broker
-- takes them. They are kept, and each keeps its bytes and its id for ever.
create table trading.outgoing_settlements (
    seq         bigint generated always as identity primary key,
    message_id  uuid   not null unique,
    id          text   not null,                -- the correlation id
    status      text   not null,
    body        text   not null,
    made_at     timestamptz not null default clock_timestamp(),
    sent_at     timestamptz                     -- confirmed by the other application's broker
);
create index outgoing_settlements_unsent on trading.outgoing_settlements (seq) where sent_at is null;

-- Probes: records that travel the whole pipeline and are no business.
create table trading.probes (
    probe  uuid   not null,
    stage  text   not null,
    epoch  bigint not null,
    at     timestamptz not null default clock_timestamp(),
    primary key (probe, stage)
);

select region.protect(('trading.' || name)::regclass)
  from unnest(array['inbound_raw', 'pending', 'quarantine', 'ingested', 'nacks', 'conflicts', 'outbox', 'unanswered',
                    'outgoing_settlements', 'probes']) as name;

-- Messages stored by inbound that core has not decided; answers on their way. The age of the oldest of each. Asked in a drain,
-- so it reads nothing that may grow while another application is away.
create view trading.on_its_way as
    select 'undecided' as part, count(*) as records,
           extract(epoch from clock_timestamp() - min(since))::double precision as oldest_seconds from trading.pending
    union all
    select 'unanswered', count(*), extract(epoch from clock_timestamp() - min(since))::double precision
      from trading.unanswered;

-- With settlements that wait for the other application's broker.
create view trading.backlog as
    select * from trading.on_its_way
    union all
    select 'settlements', count(*), extract(epoch from clock_timestamp() - min(made_at))::double precision
      from trading.outgoing_settlements where sent_at is null;

-- One number for the drain check. Settlements are no part of it: they wait for another application, and go along with
-- the database in a switch.
create view trading.in_flight as
    select (select count(*) from trading.pending) + (select count(*) from trading.unanswered) as in_flight;

grant usage on schema trading
    to trading_inbound, trading_ingestion, trading_core, trading_egress, trading_outbound, region_operator;
grant select on trading.in_flight to region_operator, trading_core;
grant select on trading.on_its_way, trading.backlog to trading_core;

grant select, insert on trading.inbound_raw to trading_inbound;
grant insert on trading.pending to trading_inbound;
grant select, insert on trading.ingested, trading.nacks to trading_ingestion;
grant select, insert on trading.conflicts, trading.outbox to trading_core;
grant update (sent_at) on trading.outbox to trading_core;
-- Locking rows of a table wants the right to change them; the list has nothing that is worth a change.
grant select, delete, update (since) on trading.pending to trading_core;
grant select, insert on trading.unanswered to trading_core;
grant select, insert on trading.outgoing_settlements to trading_egress;
grant select, update (sent_at) on trading.outgoing_settlements to trading_outbound;
-- Replay reads what the earlier stages stored.
grant select on trading.inbound_raw, trading.ingested, trading.nacks to trading_core;
grant select, insert, update (seen, last_seen) on trading.quarantine
    to trading_inbound, trading_ingestion, trading_core, trading_egress, trading_outbound;
grant select, insert on trading.probes
    to trading_inbound, trading_ingestion, trading_core, trading_egress, trading_outbound;
