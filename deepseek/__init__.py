"""A facade of a few lines: names of the product's brief, re-exported; it holds no logic."""
