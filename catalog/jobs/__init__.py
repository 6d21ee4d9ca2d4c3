"""The job queue in Postgres: submissions, claims, attempts, recovery and control."""
