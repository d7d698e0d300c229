-- Trade matching: counts the reports that are there already. Apart from what counts the others, which must have been committed
-- before. Runs as trading_owner.
select trading.recount();
