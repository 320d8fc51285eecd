"""The models of API requests and responses."""
