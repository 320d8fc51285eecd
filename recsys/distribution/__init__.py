"""May it be shown here, now, to this viewer, and how is this screen laid out? Fails closed."""
