"""Previews over the API: recent requests are replayed in worker processes; figures are streamed as they arrive.

`requests` selects the requests · `payload` carries a study to a worker process · `worker_pool` runs the workers ·
`service` admits previews and streams their figures.
"""
