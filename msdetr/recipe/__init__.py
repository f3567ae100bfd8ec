"""Recipes: pydantic schema, YAML loading and overrides. No torch."""
