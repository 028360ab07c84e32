"""The resource: what it may say, checked at the door, and its definition."""
