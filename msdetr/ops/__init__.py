"""Multi-scale deformable attention: the one door to its backends."""
