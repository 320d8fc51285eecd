"""Types of the domain: items and the catalog, viewers and their state, placements, regions, queries, traces, errors."""
