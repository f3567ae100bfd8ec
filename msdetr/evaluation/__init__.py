"""COCO metrics and typed results."""
