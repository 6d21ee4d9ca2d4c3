"""The harder pool: adapters of similar domains with mixed settings, and adapters tuned on preferences."""
