"""Sets of modules for a task: how much of each, and what they make of its examples."""
