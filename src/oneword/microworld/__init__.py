"""The embedded default model: its world, its recipe, its weights."""
