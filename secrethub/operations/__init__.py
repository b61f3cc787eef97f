"""Use cases: check the seal, decide, act, audit."""
