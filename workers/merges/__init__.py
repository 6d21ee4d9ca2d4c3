"""Merging adapters with PEFT."""
