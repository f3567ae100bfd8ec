"""What differences between supervision schemes mean: statistics over seeds and images, verdicts."""
