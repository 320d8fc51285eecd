"""Types of the domain: items and their catalog, viewers and their state, placements, regions, errors."""
