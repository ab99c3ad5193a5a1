"""A trained model becomes a file for a device, with proof that it computes the same."""
