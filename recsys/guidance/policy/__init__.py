"""What editors set: controls, profiles, policies, their inheritance and their YAML text."""
