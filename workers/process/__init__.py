"""Infrastructure of worker processes: heartbeat, cancellation, retries, locks."""
