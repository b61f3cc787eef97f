"""Schema migrations, run by :mod:`secrethub.storage.migrate`."""
