"""Selecting sets of adapters to compose for a task."""
