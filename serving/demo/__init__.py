"""The command `recsys-demo`: run the whole engine on one machine, from real interactions to guided pages."""
