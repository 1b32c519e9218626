"""Content security policies: what a browser may load and run for a response."""

from __future__ import annotations

import base64
import hashlib
import re

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""For responses that are data: nothing may be loaded, nothing may frame them."""
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def page_policy(html: str) -> str:
    """Return the policy of an HTML page of /docs: files of this server, and the inline scripts that the page has.

    Swagger UI sets inline styles and shows icons as data URLs; neither can run anything.
    """
    hashes = (hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(html))
    scripts = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
