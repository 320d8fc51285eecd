"""A simulated day of traffic, to try exposure targets on before an audience is."""
