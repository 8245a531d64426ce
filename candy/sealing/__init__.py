"""Sealed sessions between members, decided: for a device, or for a relay's own interface."""
