"""Statements on jobs, attempts, queues and workers."""
