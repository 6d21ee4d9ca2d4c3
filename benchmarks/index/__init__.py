"""Latency, size, recall and freshness of the index, compared with an exact scan and with other libraries."""
