"""Importers: readers of catalogs from external sources."""
