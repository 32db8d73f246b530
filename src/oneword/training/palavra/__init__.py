"""PALAVRA: a word in the space of a CLIP, from a network over sets and a few steps (2204.01694)."""
