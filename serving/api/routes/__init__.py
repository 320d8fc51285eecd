"""The HTTP routes, with one module and one router for each part of the API."""
