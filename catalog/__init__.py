"""What the API and the workers share: settings, tables, queries, the queue, the index.

Imports no web framework and no torch, which import-linter enforces.
"""
