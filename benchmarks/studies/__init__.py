"""Studies of how the vectors depend on settings: one file per study."""
