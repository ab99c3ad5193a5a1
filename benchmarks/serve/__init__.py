"""Services under load: ours beside others, with an open-loop generator."""
