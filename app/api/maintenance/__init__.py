"""Routes of the retention."""
