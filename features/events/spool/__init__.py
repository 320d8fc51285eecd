"""The port `Spool`: events that wait on disk until the stream accepts them."""
