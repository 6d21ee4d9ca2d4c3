"""Which set of adapters to compose."""
