"""The paper's retrieval strategy: the table for training, the documents for a prompt."""
