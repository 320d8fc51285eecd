"""The port `OnlineStore` and its adapters: Redis, SQLite, memory; circuit breaker; compare-and-set."""
