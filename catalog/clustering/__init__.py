"""Clusters of unit vectors, and what they are about: pure maths, arrays in and arrays out."""
