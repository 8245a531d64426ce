"""What an operator asks of a running relay or member: its state, its figures, and a few changes."""
