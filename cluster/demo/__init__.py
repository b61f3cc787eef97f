"""The main job shown end to end on a temporary cluster: ``python -m cluster.demo``.

Everything runs as its own process and is reached as an operator, an application or an administrator
would: the command line's HTTP client, the agent's socket and file, SQL. Nothing is left behind.
"""
