"""Ways to compute the same numbers in less time."""
