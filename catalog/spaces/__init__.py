"""The embedding contract, and what was measured of bases."""
