-- What reconciliation needs: ids that are functions of content, a way to read since a mark, an audit row for each run
-- that may change something. Runs as trading_owner.

-- The message id of the refusal of a record; the same bytes as ids::nack of the program.
create function trading.nack_id(record uuid) returns uuid
language sql stable parallel safe
return encode(substring(sha256(
    int8send(4) || 'nack'::bytea || int8send(16) || uuid_send(record)) for 16), 'hex')::uuid;

-- The message id of the answer about a trade that reached a status; the same bytes as ids::answer of the program.
create function trading.answer_id(trade_date date, id text, version integer, status text) returns uuid
language sql stable parallel safe
return encode(substring(sha256(
    int8send(6) || 'answer'::bytea
    || int8send(10) || convert_to(to_char(trade_date, 'YYYY-MM-DD'), 'UTF8')
    || int8send(octet_length(id)) || convert_to(id, 'UTF8')
    || int8send(4) || int4send(version)
    || int8send(octet_length(status)) || convert_to(status, 'UTF8')) for 16), 'hex')::uuid;

-- Rows are added in about the order of these times, so an index of block ranges finds what is younger than a mark, and
-- costs the stages next to nothing.
create index inbound_raw_by_time on trading.inbound_raw using brin (received_ms);
create index ingested_by_time on trading.ingested using brin (received_ms);
create index nacks_by_time on trading.nacks using brin (received_ms);
create index trades_by_time on trading.trades using brin (received_ms);
create index outbox_by_time on trading.outbox using brin (sent_at);
create index egressed_by_time on trading.egressed using brin (at);
create index sent_by_time on trading.sent using brin (at);

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

grant execute on function trading.nack_id(uuid), trading.answer_id(date, text, integer, text) to trading_core;
grant select on trading.sent to trading_core;
-- A report that core has decided and whose decision is lost is put back on the list, or core would pass it over.
grant insert on trading.pending to trading_core;
grant select, insert, update (finished, replayed, remaining, outcome) on trading.reconciliations to trading_core;
