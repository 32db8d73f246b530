"""Ways to need less time for the same numbers."""
