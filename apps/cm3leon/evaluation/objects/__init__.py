"""Whether the right things are in a picture, in number, colour and place (arXiv 2310.11513)."""
