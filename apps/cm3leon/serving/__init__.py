"""A run served: a scheduler that draws for many at once, an HTTP service over it, and a page."""
