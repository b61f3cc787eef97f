"""The audit ledger: entries, chain, masking."""
