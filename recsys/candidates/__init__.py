"""Who might be shown? Sources propose catalogue rows; the pipeline joins them and remembers who proposed what."""
