"""Programs and interfaces of others on our sessions: MPyC, and `concurrent.futures.Executor`."""
