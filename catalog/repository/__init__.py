"""Every SQL statement, one file per aggregate. Functions take a session and never commit."""
