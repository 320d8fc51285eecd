"""The offline store: every folded event in Parquet files, for training and replay."""
