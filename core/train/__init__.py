"""Training: any ``Task``, on one process or many. ``Trainer`` is in ``core.train.trainer``."""
