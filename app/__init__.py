"""The HTTP API and the command line: parse, make one call to the catalog, return. Never imports torch."""
