"""A model in, a smaller model out."""
