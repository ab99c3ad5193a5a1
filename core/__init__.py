"""The shared core: what every kit trains, converts, serves and observes with."""
