"""Forty models, each converted to every target: which took which, how exactly, and why not."""
