"""The HTTP API: routes, authentication, request bodies, pagination."""
