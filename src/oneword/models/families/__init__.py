"""Model families, one per file and nothing else; the catalog names them."""
