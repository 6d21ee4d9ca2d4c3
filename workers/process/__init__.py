"""What any worker process needs."""
