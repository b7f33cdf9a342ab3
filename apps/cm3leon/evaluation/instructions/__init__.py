"""What a tuned run makes of the embedded instructions, one task's figures a file."""
