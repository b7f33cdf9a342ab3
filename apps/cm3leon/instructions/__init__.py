"""Instruction tuning: sets of records, where they come from, and the embedded ones."""
