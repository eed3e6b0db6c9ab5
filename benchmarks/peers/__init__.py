"""The same work through other frameworks, each in an environment of its own."""
