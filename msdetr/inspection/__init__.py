"""Inspecting assignments: match traces, statistics, figures and reports."""
