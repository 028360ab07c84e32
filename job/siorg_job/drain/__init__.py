"""Claims until nothing is claimable, and keeps what is in work alive."""
