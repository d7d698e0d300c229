-- Trade matching: reconciliation asks for a few trades what came back for them and counts. Runs as trading_owner.

create index returned_counting on trading.returned (trade_date, trade) where code is null;
