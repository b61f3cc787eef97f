"""Sinks of the ledger: places beside the database to which its entries are copied."""
