"""The queue in Postgres: submit, claim, attempt, recover, control."""
