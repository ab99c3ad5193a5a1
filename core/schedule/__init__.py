"""DeepFlow: who computes what, and when. Knows what each device costs; no torch."""
