"""Scores, what they are read from, and reports."""
