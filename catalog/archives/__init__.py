"""Archives (zip files) of adapters, stored in Postgres."""
