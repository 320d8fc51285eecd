"""The edge of the service: what is checked before a request is handled, and the bounds of connections and bodies.

`http_protocol` bounds connections. `route` checks each request in this order, reading no body before it must: the names
in `Host` and `Origin` (`callers`), the token of the editors, the content type (`media_types`), the size of the body
while it is read (`body`).
"""
