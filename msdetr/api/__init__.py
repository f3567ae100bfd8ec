"""Workflows that Python users and the command line call."""
