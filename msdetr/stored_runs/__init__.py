"""What training runs left in their directories, read without loading torch."""
