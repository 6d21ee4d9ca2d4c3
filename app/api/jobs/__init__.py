"""Jobs, their events, queues and workers."""
