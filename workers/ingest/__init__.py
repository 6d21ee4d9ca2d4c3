"""The ingest of jobs: claim, fetch, encode, store."""
