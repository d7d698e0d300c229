-- What is there is read once, and in part written again, however long that takes. All locks are taken at once and in the order
-- of the stages; behind a reader that holds one for long, writers must not wait: better to try again.
set local statement_timeout = 0;
set local lock_timeout = '2s';
lock table trading.inbound_raw, trading.returned_raw, trading.ingested, trading.nacks, trading.returned_ingested,
    trading.returned_nacks, trading.pending, trading.returned_pending, trading.trades, trading.conflicts, trading.outbox,
    trading.unsent, trading.egressed, trading.sent, trading.unanswered in access exclusive mode;

