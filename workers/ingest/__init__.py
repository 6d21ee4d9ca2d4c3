"""claim -> fetch -> encode -> store."""
