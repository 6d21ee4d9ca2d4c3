"""Selections of adapters to compose for a task."""
