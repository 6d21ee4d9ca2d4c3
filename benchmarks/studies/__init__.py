"""What the vectors depend on: one file a study."""
