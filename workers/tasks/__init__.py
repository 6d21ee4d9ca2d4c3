"""From a few examples to an adapter, and from an adapter to what it makes of examples."""
