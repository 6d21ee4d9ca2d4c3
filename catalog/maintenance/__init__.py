"""The sweep, which recovers jobs and deletes what has expired."""
