"""CLIP: open_clip's models, a small one trained here, and the pictures they read."""
