"""The fraud kit: transactions over time, scored against fraud."""
