"""Changes on the Hub: crawls, webhooks, renames and removals."""
