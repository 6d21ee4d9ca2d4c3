"""Crawls of the Hub."""
