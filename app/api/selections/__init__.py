"""Selections of adapters to compose."""
