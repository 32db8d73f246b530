"""The training loop for words, its parts, and the methods that change weights."""
