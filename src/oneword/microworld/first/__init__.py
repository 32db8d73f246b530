"""The first embedded model and its drawn world, which ships until the second is trained."""
