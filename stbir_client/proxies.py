"""Proxies from the environment (`http_proxy`, `no_proxy`), which do not apply to this machine."""

import ipaddress
import urllib.request

import httpx

from stbir_client.errors import InputError


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".").rpartition(".")[2] == "localhost"


def proxy_of(url: httpx.URL) -> str:
    """The proxy of a URL, without its password; empty for none."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return ""
    parsed = httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def connect(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    """The HTTP client of an endpoint. Raises InputError for a proxy that cannot be used.

    It has no timeout: the caller's deadline covers the whole call.
    """
    is_local = is_loopback(httpx.URL(url).host)
    try:
        # Without the environment httpx would also ignore SSL_CERT_FILE, which the context reads.
        return httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=None,
            verify=httpx.create_ssl_context(),
            trust_env=not is_local,
        )
    except (ValueError, httpx.InvalidURL, ImportError) as error:  # the last: SOCKS needs another package
        raise InputError(f"http_proxy: cannot be used ({error}); correct or unset it") from error
