"""API keys, admin keys and Hub tokens of requests."""
