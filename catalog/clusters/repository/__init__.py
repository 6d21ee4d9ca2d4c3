"""SQL statements on clusters, their members and their runs."""
