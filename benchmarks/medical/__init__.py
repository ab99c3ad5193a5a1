"""The medical kit beside its peers."""
