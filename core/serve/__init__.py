"""A model file or bundle as a service: REST, batching, autoscaling, health, metrics; no torch."""
