"""Quarantine: repos and bases whose files ended processes of this server."""
