"""History, curves and report page of a training run."""
