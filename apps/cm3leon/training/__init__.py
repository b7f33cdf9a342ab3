"""Training of the image tokenizer, the small CLIP and the decoder."""
