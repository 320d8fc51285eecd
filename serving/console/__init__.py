"""The editors' console: one page of HTML with a little JavaScript, no assets from elsewhere, no state in the server.

It uses the same public API as every other client, so any serving process can answer any of its requests. (NiceGUI was
tried: it takes 2.5 s to import in each process and needs every browser to stay with one of them.)
"""
