"""Checkpoints as the commands open them: ours, published files, starting weights."""
