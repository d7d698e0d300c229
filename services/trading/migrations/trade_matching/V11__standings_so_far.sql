-- Trade matching: counts the reports that are there already. Apart from what counts the others, which must have been committed
-- before. Runs as trading_owner.
-- However long that takes.
set local statement_timeout = 0;
select trading.recount();
