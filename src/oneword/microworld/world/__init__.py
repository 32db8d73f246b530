"""What the embedded world holds, and how it is drawn and described."""
