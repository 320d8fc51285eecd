"""Checks of `Host` and `Origin`: a web page of another site must not write, or read viewers, through a browser.

A browser sends requests of any page to any address that it can reach, including a service on its own machine. It names
the page's site in `Origin`. A site whose DNS name is changed to the service's address passes for the same origin, but
its name is then in `Host`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from recsys.messages import Message, message

LOOPBACK_NAME = "localhost"
_PORTS = {"http": 80, "https": 443}


class Names(NamedTuple):
    """The names by which clients may reach the service.

    listening  the address the service listens on
    hosts      names allowed in `Host`, separated by commas; `*.example.com` allows subdomains, `*` any name
    origins    origins allowed in `Origin` besides the service's own, separated by commas
    """

    listening: str
    hosts: str = ""
    origins: str = ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address or name.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "tv.example")]
    [True, True, True, False, False]
    """
    try:
        return host.lower() == LOOPBACK_NAME or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def refusal(host: str, origin: str | None, names: Names) -> Message | None:
    """Return why a request with these headers is refused; None if it is allowed.

    >>> refusal("localhost:8080", None, Names("127.0.0.1")), refusal("tv.example", None, Names("0.0.0.0", "*.example"))
    (None, None)
    >>> str(refusal("127.0.0.1:8080", "http://evil.example", Names("127.0.0.1")))[:53]
    "requests of pages of 'http://evil.example' are refuse"
    """
    name = _name_and_port(f"//{host}")[0]
    if not name or not _is_allowed_name(name, names):
        return message("host_not_allowed", host=host[:200])
    if origin is None or origin in _listed(names.origins):
        return None
    scheme = origin.partition("://")[0]
    default = _PORTS.get(scheme)
    own = _name_and_port(f"//{host}", default)
    return (
        None
        if default and _name_and_port(origin, default) == own
        else message("origin_not_allowed", origin=origin[:200])
    )


def _is_allowed_name(name: str, names: Names) -> bool:
    if is_loopback(name) or name == names.listening.lower():
        return True
    return any(
        pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
        for pattern in map(str.lower, _listed(names.hosts))
    )


def _name_and_port(url: str, default: int | None = None) -> tuple[str, int | None]:
    """Return the host name and the port of a URL; an empty name if it is not a URL of only a host and a port.

    >>> _name_and_port("//[::1]:80"), _name_and_port("http://TV.example.", 80), _name_and_port("//user@tv.example")
    (('::1', 80), ('tv.example', 80), ('', None))
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", None
    if "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        return "", None
    return (parts.hostname or "").removesuffix("."), default if port is None else port


def _listed(names: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, names.split(","))))
