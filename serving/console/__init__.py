"""The editors' console: one HTML page with a little JavaScript, without external assets or server state.

It uses the same public API as every other client, so any serving process can answer any of its requests. (NiceGUI was
evaluated: importing it takes 2.5 s in each process, and each browser must stay with one process.)
"""
