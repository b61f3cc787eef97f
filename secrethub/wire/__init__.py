"""Messages between agent and Core, their codec and the sans-IO session; the API envelope."""
