"""The relay's side."""
