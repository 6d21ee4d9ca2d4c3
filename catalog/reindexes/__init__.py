"""Reindexes: models are measured again into new spaces, which take over in a cutover."""
