"""What items need from SIORG: planned for a batch, fetched once."""
