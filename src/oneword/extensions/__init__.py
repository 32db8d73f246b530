"""One published idea per file, each a part of the training loop that the settings switch on."""
