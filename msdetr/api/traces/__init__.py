"""Make match traces of checkpoints and of models in training."""
