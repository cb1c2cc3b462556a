"""Decide from which web addresses an image may be fetched. Pure.

Without this check, a client could make this machine request pages that only it can reach: a router's pages,
another service on this machine, or the metadata of a cloud.
"""

from __future__ import annotations

import ipaddress

from yarl import URL

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddress(ValueError):
    """Images must not be fetched from this address. The text says why, as part of a sentence."""


def is_public(address: IpAddress) -> bool:
    """Return whether an address belongs to the public internet, and not to a local network.

    An IPv6 address that contains an IPv4 address (mapped, 6to4, Teredo, NAT64) is judged by that IPv4
    address.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.scope_id or address.is_site_local:
            return False
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not is_special


def literal_address(host: str) -> IpAddress | None:
    """Return the IP address that `host` represents; None if `host` is a name, which has to be resolved."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def checked_url(text: str, ports: dict[str, int] = PORTS) -> URL:
    """Return `text` as a URL. `ports` maps each allowed scheme to the only port that is allowed with it.
    Raises ForbiddenAddress if the scheme or the port is not allowed, if the URL has no host, if it has a user
    or a password, or if `text` is no valid URL.
    """
    try:
        url = URL(text)
        scheme, host, port, has_user = url.scheme, url.host, url.port, bool(url.user or url.password)
    except ValueError as error:
        raise ForbiddenAddress(f"is no valid address ({error})") from None
    if scheme not in ports or not host:
        raise ForbiddenAddress("is not of the form https://HOST/PATH")
    if has_user:
        raise ForbiddenAddress("has a user or a password in it")
    if port != ports[scheme]:
        raise ForbiddenAddress(f"has the port {port}; only {ports[scheme]} is allowed for {scheme}")
    return url
