"""`deltadex up`: the servers and processes of one machine."""
