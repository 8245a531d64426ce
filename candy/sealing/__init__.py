"""Sealed sessions between members, decided: for whoever is one, a device or a relay's own interface."""
