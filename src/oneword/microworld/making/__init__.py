"""How the embedded models are trained on their world."""
