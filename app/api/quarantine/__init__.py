"""Quarantined repos and bases."""
