"""Layer 1, the decision layer. It is pure: no files, sockets, clocks, random state, environment or logging."""
