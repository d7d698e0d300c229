module regions.trading.dev/lab/pause

go 1.26.0
