"""Training adapters on the examples of tasks, and scoring fine-tunes on examples."""
