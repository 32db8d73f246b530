"""Runs on disk: one word, many, several together, on one machine or a cluster."""
