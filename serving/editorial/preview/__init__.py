"""Previews over the API: recent requests gathered, replayed in processes of their own, figures streamed as they come.

`requests` where the requests come from · `parcel` a study as it travels between processes · `crew` the processes ·
`service` admission and the stream of figures.
"""
