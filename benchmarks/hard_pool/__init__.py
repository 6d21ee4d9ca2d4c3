"""The harder pool: adapters of near domains with mixed settings, and adapters tuned by preference."""
