"""Webhooks of the Hub."""
