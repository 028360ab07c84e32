"""What a fetched answer does to the local structure: the decision (pure) and its application (one transaction)."""
