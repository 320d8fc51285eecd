"""The page solver beside an exact integer programme and what others do: `make bench-guidance`."""
