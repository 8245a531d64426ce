"""The member's side."""
