"""From a query to ranked neighbors."""
