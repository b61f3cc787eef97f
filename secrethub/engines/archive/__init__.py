"""The archive of the ledger: old entries in files or in S3, proven, verified, and then pruned."""
