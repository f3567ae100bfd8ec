"""Workflows of studies: running cells, and saying how far they are."""
