"""DeepFlow against other rules: real workers, replayed ones, simulated ones."""
