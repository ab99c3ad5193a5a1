"""What runs on a device and in the server alike: standard library and numpy only."""
