"""A learned word, its weight deltas, and its files, cards and repositories."""
