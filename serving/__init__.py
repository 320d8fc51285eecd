"""Layer 3: the HTTP service. It contains the page API, the editorial API and the console."""
