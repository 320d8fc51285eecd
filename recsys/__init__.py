"""Floor 1: decide. Pure: no files, sockets, clocks, random state, environment or logging; all of that is handed in."""
