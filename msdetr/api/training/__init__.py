"""One training run composed from a recipe: session, resuming, report."""
