"""Whether sets of modules that are chosen by their shifts do better than random ones."""
