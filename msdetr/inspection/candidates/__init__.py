"""The best queries of every target, compared between two models."""
