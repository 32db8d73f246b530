"""Ways to need less memory, and the one that fits what is free."""
