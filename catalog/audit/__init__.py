"""The audit log: each act that changes something."""
