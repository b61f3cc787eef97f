"""Engines: what lives at a mount, declared as operations."""
