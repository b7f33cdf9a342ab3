"""Documents, and the memory bank that keeps, finds and saves them."""
