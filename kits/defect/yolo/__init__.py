"""The zoo inside ultralytics, for training and its metric only: that package is AGPL-3.0."""
