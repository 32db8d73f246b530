"""The embedded model: its world, its recipe, its weights.

``first`` is the model that ships today, with its small world. The modules beside it are the second
world, drawn and described, whose model is in the making; when that is the better one, ``first``
goes.
"""
