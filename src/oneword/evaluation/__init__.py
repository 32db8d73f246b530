"""Scores, the features that they are computed from, and reports."""
