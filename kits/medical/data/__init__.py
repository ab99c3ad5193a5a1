"""Where scans and their truth come from: simulated, public sets, a user's own files."""
