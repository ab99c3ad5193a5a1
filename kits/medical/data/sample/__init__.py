"""Real reader masks of LIDC-IDRI nodules, CC BY 3.0: see ATTRIBUTION.md."""
