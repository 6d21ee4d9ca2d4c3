"""How well vectors tell labelled models apart: `deltadex evaluate`."""
