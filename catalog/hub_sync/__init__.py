"""Keeping up with the Hub: crawls, webhooks, renames and removals."""
