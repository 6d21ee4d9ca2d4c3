"""SQL for jobs, claims, attempts, events, queues and workers."""
