"""Words outside the model: tables, tokenizers, and the rows inserted into them."""
