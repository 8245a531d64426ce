"""This machine: its interfaces, routes, addresses and files."""
