"""Identities: tokens, AppRole, bindings. Pure rules."""
