"""Base models: their resolution from claims, and the ones in memory."""
