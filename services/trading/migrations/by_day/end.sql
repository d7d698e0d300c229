
-- From here on days are made and dropped under the guard only, by whoever holds the lease.
select region.protect('trading.days');

revoke execute on function trading.day_ms(date), trading.make_unique(name, name[]),
    trading.by_day(name, name, name[], bigint), trading.make_partition(trading.stores_by_day, trading.days),
    trading.lock_stores(), trading.make_days_until(bigint, integer), trading.drop_day_until(bigint), trading.open_before(bigint),
    trading.delete_late_rows_until(bigint, integer), trading.make_days(), trading.drop_day(integer), trading.delete_late_rows(),
    trading.days_standing() from public;
grant execute on function trading.make_days(), trading.drop_day(integer), trading.delete_late_rows(), trading.days_standing()
    to trading_core;
grant select on trading.kept to trading_core, trading_peer;
grant select on trading.oldest_answer to trading_core;
-- A person says so with core's role, under the guard.
grant update (dealt_with) on trading.quarantine to trading_core;
