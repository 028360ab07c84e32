"""Observes, has the decision made, carries it out; kopf wakes it."""
