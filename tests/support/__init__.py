"""What several test folders share: scenarios that run in both colours, clocks, savers, graph strategies."""
