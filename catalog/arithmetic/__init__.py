"""Sums of vectors by their names: the language, what names stand for, and how far a sum is from a model."""
