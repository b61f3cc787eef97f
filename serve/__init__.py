"""The gateway: Ray Serve application, listeners, dispatch."""
