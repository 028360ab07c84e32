"""Requests to Kubernetes."""
