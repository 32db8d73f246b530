"""Words outside the model: tables, tokenizers, and the rows spliced into them."""
