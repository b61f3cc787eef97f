"""The agent: a plain asyncio daemon that delivers secrets to a host."""
