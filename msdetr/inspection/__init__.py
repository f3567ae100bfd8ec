"""Looking at assignments: match traces, statistics, figures and reports."""
