"""Merges: adapters made one by PEFT itself, and what tells of the result."""
