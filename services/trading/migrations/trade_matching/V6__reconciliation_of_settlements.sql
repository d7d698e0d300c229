-- Trade matching: what reconciliation of settlements needs, and what the settlement application's may read. Runs as
-- trading_owner.

-- The record of a message; the same bytes as ids::record of the program.
create function trading.record_id(correlation_id text, body bytea) returns uuid
language sql stable parallel safe
return encode(substring(sha256(
    int8send(6) || 'record'::bytea
    || int8send(octet_length(correlation_id)) || convert_to(correlation_id, 'UTF8')
    || int8send(octet_length(body)) || body) for 16), 'hex')::uuid;

-- Rows are added in about the order of these times.
create index outgoing_settlements_by_time on trading.outgoing_settlements using brin (made_at);
create index returned_by_time on trading.returned using brin (received_ms);

grant execute on function trading.record_id(text, bytea) to trading_core, trading_peer;
-- What came back, was applied, and whose row is lost is put back on the list, or core would pass it over.
grant insert on trading.returned_pending to trading_core;
-- A replay makes settlements due again; outbound sends them.
grant update (sent_at) on trading.outgoing_settlements to trading_core;
grant update (attempts, due) on trading.unreturned to trading_core;

-- The settlement application's reconciliation: what arrived here of what it sent back, and what is still waited for.
grant usage on schema trading to trading_peer;
grant select (record, correlation_id, received_ms, body) on trading.returned_raw to trading_peer;
grant select on trading.unreturned to trading_peer;
grant select (message_id, sent_at) on trading.outgoing_settlements to trading_peer;
grant select (digest) on trading.quarantine to trading_peer;
