"""SQL of vectors and the change feed."""
