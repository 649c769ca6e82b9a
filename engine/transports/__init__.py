"""Streams by multiaddress: TCP, unix sockets, this process itself, SOCKS5, Tor and its onion services, WebSockets."""

from __future__ import annotations

from .errors import AddressNotSupported, DialFailed, DialTimeout, TorControlError, TransportError
from .listening import Listening
from .onion_service import OnionListening, OnionService
from .router import Router
from .settings import ProxyScope, SocksProxy, TransportSettings, WebSocketSettings
from .socks import SocksCredentials
from .switchboard import Switchboard
from .tor_control import TorAuthentication

__all__ = [
    "AddressNotSupported",
    "DialFailed",
    "DialTimeout",
    "Listening",
    "OnionListening",
    "OnionService",
    "ProxyScope",
    "Router",
    "SocksCredentials",
    "SocksProxy",
    "Switchboard",
    "TorAuthentication",
    "TorControlError",
    "TransportError",
    "TransportSettings",
    "WebSocketSettings",
]
