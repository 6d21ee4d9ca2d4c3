"""SQL of access: which rows a viewer may see."""
