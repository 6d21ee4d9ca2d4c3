"""The commands, one file per capability."""
