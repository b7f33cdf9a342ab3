"""CLIP: open_clip's models, one of your own, and the pictures they read."""
