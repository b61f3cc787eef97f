"""Rotation of secrets: what is configured, how a run is begun, and how it is carried on step by step."""
