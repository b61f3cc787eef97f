"""Policies: documents, matching and the one decision."""
