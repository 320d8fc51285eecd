"""The HTTP routes, one file per part of the API. Each builds its router from the services it uses."""
