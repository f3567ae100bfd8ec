"""Many settings of the one-to-many assigner tried on one trace."""
