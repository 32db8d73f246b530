"""The training loop of words, what it is made of, and the methods that change weights."""
