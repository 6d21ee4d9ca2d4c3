"""Measuring anew beside what serves, and the cutover."""
