"""Tells Relay text and Relay JSON from their first bytes."""

from __future__ import annotations

import re

_TEXT_HEAD = re.compile(
    rb"^(?:\s|//[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
    rb"(?:#\[version\s*=|v0\.0\.\d|def\s+@|fn\s*[\[(]|type\s+\w+[\s\[{]|extern\s+type|free_var\s+%|let\s+%|%\w[\w.]*\s*[=:])"
)
_JSON_HEAD = re.compile(rb'^\s*\{.*"(?:type_key|nodes|root)"', re.DOTALL)


def sniff(head: bytes) -> bool:
    """Whether the first bytes of a file look like Relay text or Relay JSON."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    if _TEXT_HEAD.match(head):
        return True
    return bool(_JSON_HEAD.match(head)) and b'"type_key"' in head and b'"root"' in head
