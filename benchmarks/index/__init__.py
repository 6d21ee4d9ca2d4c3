"""How fast, small, exact and fresh the index is, beside an exact scan and what a user would take otherwise."""
