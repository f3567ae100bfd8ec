"""Names and files of the published checkpoints."""
