"""How the embedded model's data and weights are made."""
