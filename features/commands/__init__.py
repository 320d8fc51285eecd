"""The subcommands of `mainstay` that belong to the features layer.

These modules define command lines only and load quickly; each command imports its implementation when it runs.
"""
