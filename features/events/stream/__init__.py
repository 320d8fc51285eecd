"""The port `Stream` and its adapters: Kafka, SQLite, memory."""
