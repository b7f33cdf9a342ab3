"""Prompts to pictures, pictures to captions, regions redrawn: plain arguments, no files."""
