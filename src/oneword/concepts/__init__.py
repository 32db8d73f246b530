"""A learned word, its weight changes, and the files, cards and hubs that hold it."""
