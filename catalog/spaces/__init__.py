"""Spaces, the contracts that define them, and the activations of base models."""
