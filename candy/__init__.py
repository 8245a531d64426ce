"""candy: a VPN made of one relay and many endpoints.

`candy-server` forwards the members' IPv4 packets, `candy-client` joins a machine through a TUN device. This
file knows the version, and nothing else: importing the package imports none of its parts.
"""

__version__ = "0.1.0"
