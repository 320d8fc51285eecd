"""`mainstay demo`: the whole engine on one machine, from real interactions to guided pages."""
