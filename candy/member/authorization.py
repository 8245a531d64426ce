"""HTTP's Basic authorization (RFC 7617), towards a web server or a proxy: user and password of a URL as a header."""

import base64
from urllib.parse import unquote_to_bytes

from yarl import URL


def basic(url: URL) -> str | None:
    """The value of Authorization or Proxy-Authorization; None if the URL has neither user nor password.

    Characters go out in UTF-8, and percent-encoded bytes as they are. The user has no colon: that is its end.
    """
    if url.raw_user is None and url.raw_password is None:
        return None
    credentials = b":".join(unquote_to_bytes(part or "") for part in (url.raw_user, url.raw_password))
    return f"Basic {base64.b64encode(credentials).decode('ascii')}"
