"""Models of requests and answers on the wire."""
