"""Training: losses, GradCache, the sharded step, and the trainer of two-stage recipes."""
