"""Rules of leases, without IO: what a lease is, how long it lives, when its end is tried again."""
