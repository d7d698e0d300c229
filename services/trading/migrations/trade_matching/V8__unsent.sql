-- What core's relay has not sent, as a narrow list: marking a row of the outbox as sent wrote the whole decision once more.
-- Core adds, its relay takes away. Runs as trading_owner.
create table trading.unsent (
    seq  bigint primary key
);
select region.protect('trading.unsent');

-- From here on core writes it with the row. Null only in what a core of an older version wrote and has not sent: the relay takes
-- that as before, and the index of it stays as good as empty.
comment on column trading.outbox.sent_at is 'when it was given to the relay; in unsent until that has sent it';

-- Locking rows of a table wants the right to change them.
grant select, insert, delete, update (seq) on trading.unsent to trading_core;
