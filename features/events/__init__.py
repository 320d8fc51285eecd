"""Viewer events: schema, decoding, validation, dead letters, formats, the stream and the spool."""
