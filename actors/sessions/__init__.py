"""Agent sessions: virtual actors, thousands in one process.

An :class:`~actors.sessions.session.AgentSession` has its own mailbox, task and state and is
supervised by a :class:`~actors.sessions.supervisor.SessionSupervisor` in the same process. It knows
neither WebSockets nor Ray: bytes leave through a ``Transport``, decisions and secrets come through
an ``Access`` (:mod:`actors.sessions.ports`).
"""
