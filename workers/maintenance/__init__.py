"""Work on whole spaces and on the Hub's listing, beside the encoding."""
