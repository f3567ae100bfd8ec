"""One-to-one and one-to-many assignment of queries to targets."""
