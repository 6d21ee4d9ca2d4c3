"""How well vectors tell labelled models apart: `deltadex evaluate` and `deltadex study`."""
