"""Rotators: how a new value of a secret comes to be, one file a kind. ``kinds.py`` is the table of them."""
