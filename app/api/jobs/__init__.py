"""Jobs, queues and workers."""
