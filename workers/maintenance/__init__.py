"""Work on whole spaces and on the lists of the Hub, which runs while the worker encodes."""
