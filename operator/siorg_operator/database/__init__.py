"""Reads how long the queue is, and listens."""
