-- When a settlement that has not come back is to be sent again, so that a look reads what is due and nothing else. Runs as
-- trading_owner.

-- Null while it waits for the sender, and after the last attempt. Outbound sets it when the other application's broker has
-- taken the settlement. The default is for those that are there now, and for what an outbound of an older version sends. From
-- here on `since` stays what it was at first, when the settlement was made, and `attempts` is how often that broker took it.
alter table trading.unreturned
    add column due timestamptz default clock_timestamp() + interval '10 minutes';
create index unreturned_due on trading.unreturned (due) where due is not null;

grant update (due) on trading.unreturned to trading_outbound;
