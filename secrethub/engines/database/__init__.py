"""Credentials of databases."""
