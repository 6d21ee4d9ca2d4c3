"""The periodic sweep."""
