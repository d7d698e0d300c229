-- Trade matching: the trace context that came with a message, for what follows from it. Null where none came: then it costs
-- nothing. Always 55 characters, as the W3C's traceparent of version 00. Runs as trading_owner.
-- A reader that holds a store for long must not hold up its writers behind this: better to try again.
set local lock_timeout = '2s';
alter table trading.inbound_raw add column traceparent varchar(55);
alter table trading.returned_raw add column traceparent varchar(55);
-- A report's, until its counterpart comes: each side's answer continues its own side's trace.
alter table trading.trades add column traceparent varchar(55);
alter table trading.outbox add column traceparent varchar(55);
alter table trading.outgoing_settlements add column traceparent varchar(55);

grant update (traceparent) on trading.trades to trading_core;
