"""Ways to save memory, and the choice of one that fits the free memory."""
