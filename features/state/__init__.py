"""Viewer and item state: the fold, codecs, quarantine, exposure counts."""
