"""Primitives bound to their use: sealed values, keyring, shares, digests, sealed boxes."""
