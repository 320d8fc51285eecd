"""Pages, event intake, impressions and live metrics."""
