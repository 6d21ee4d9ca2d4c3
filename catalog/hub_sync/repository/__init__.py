"""SQL for crawls and listed repos."""
