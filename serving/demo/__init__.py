"""The command `mainstay demo`: run the whole engine on one machine, from real interactions to guided pages."""
