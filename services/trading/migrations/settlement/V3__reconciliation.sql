-- The settlement application: what reconciliation needs, as in trade matching; and what the other application's may read.
-- Runs as trading_owner.

-- The message id of the refusal of a record; the same bytes as ids::nack of the program.
create function trading.nack_id(record uuid) returns uuid
language sql stable parallel safe
return encode(substring(sha256(
    int8send(4) || 'nack'::bytea || int8send(16) || uuid_send(record)) for 16), 'hex')::uuid;

-- The record of a message; the same bytes as ids::record of the program.
create function trading.record_id(correlation_id text, body bytea) returns uuid
language sql stable parallel safe
return encode(substring(sha256(
    int8send(6) || 'record'::bytea
    || int8send(octet_length(correlation_id)) || convert_to(correlation_id, 'UTF8')
    || int8send(octet_length(body)) || body) for 16), 'hex')::uuid;

-- Rows are added in about the order of these times.
create index inbound_raw_by_time on trading.inbound_raw using brin (received_ms);
create index ingested_by_time on trading.ingested using brin (received_ms);
create index nacks_by_time on trading.nacks using brin (received_ms);
create index settlements_by_time on trading.settlements using brin (received_ms);
create index outbox_by_time on trading.outbox using brin (sent_at);
create index outgoing_settlements_by_time on trading.outgoing_settlements using brin (made_at);

-- One row for each boundary of a run with --replay. A row that stays 'running' is of a run that broke off.
create table trading.reconciliations (
    id            uuid primary key,
    job           text   not null,
    started       timestamptz not null default clock_timestamp(),
    finished      timestamptz,
    performed_by  text   not null,
    region        text   not null,
    epoch         bigint not null,
    missing       bigint not null,              -- found at the start
    ahead         bigint not null,
    differs       bigint not null,
    replayed      bigint not null default 0,    -- records sent again
    remaining     bigint,                       -- missing at the end
    outcome       text   not null default 'running'
                  check (outcome in ('running', 'clean', 'repaired', 'differences')),
    check ((outcome = 'running') = (finished is null)),
    check ((outcome = 'running') = (remaining is null))
);

select region.protect('trading.reconciliations');

grant execute on function trading.nack_id(uuid) to trading_core;
grant execute on function trading.record_id(text, bytea) to trading_core, trading_peer;
-- What core has decided and whose decision is lost is put back on the list, or core would pass it over.
grant insert on trading.pending to trading_core;
grant select, insert, update (finished, replayed, remaining, outcome) on trading.reconciliations to trading_core;

-- Trade matching's reconciliation: what arrived here of what it made.
grant usage on schema trading to trading_peer;
grant select (record, correlation_id, received_ms, body) on trading.inbound_raw to trading_peer;
grant select (digest) on trading.quarantine to trading_peer;
