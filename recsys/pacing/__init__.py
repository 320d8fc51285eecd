"""Pacing of exposure targets: audience-wide delivery goals, reached by adjusting a price per target."""
