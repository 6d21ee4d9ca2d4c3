"""The two-dimensional map: laid out and shown."""
