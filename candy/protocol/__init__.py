"""What both sides speak. Pure: no I/O, no clock, no random number."""
