"""The offline store: every event that was folded, as Parquet files, for training and replay."""
