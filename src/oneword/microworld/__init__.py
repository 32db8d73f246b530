"""The embedded model: its world, its recipe, its weights.

The package ships a model of the first, small world. The second world is drawn and described; its
model is in progress.
"""
