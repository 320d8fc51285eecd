"""The spool: stores accepted events on disk until the stream acknowledges them."""
