"""Simulated days of traffic for testing the pacing of exposure targets before they meet an audience."""
