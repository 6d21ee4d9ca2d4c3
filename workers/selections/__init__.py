"""Composing selections of adapters and measuring them."""
