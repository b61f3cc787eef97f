"""Starting and joining a cluster: settings, embedded PostgreSQL, Ray nodes, command line."""
