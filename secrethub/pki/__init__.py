"""Certificates: profiles, names, requests, issuing, chains and standing. No IO; time is an argument."""
