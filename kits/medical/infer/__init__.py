"""From a volume and a network to findings, on a small computer. No torch."""
