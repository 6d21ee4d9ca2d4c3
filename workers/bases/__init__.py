"""Which base a fine-tune has, and which bases are in memory."""
