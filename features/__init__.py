"""Floor 2: remember. Events, the stream, the fold into state, and state as named columns."""
