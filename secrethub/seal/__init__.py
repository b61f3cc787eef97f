"""The seal: slots, shares and the state machine that opens the root key."""
