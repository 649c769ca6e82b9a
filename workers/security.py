"""The table [security] of a configuration: how the links to our peers are protected, and what proves who is who.

Between whoever writes the configuration and the processes that serve links. The one invariant: a SecurityConfig without
problems gives every peer one mode and all that this mode needs; nothing is protected less than what was asked for, and
no private key is in it, only the path of its file.

Paths are relative to the folder of the configuration.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.channel.link_security import NOISE_MODES, LinkSecurity, mode_text
from partywire.engine.preamble import SecurityMode
from partywire.engine.topology import dials

from .compat_config import speaks_tls
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .config import PartyConfig

MODES: Final = ("tls", "noise", "none")
PATTERNS: Final = ("XX", "IX", "KK")
CIPHERS: Final = ("chacha20-poly1305", "aes-256-gcm")

EXPIRES_SOON: Final = datetime.timedelta(days=30)
"""A certificate with less time left is worth a word of `partywire check`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSecurity:
    """[security.peers.NAME]: what is different, or known, of one peer."""

    mode: str | None = None
    """Instead of the mode of all links."""
    certificate: str = ""
    """File of the peer's certificate: no other one will do, whoever issued it. Two while one replaces the other."""
    ca: str = ""
    """File of the issuers that vouch for this peer, instead of those of all peers."""
    fingerprint: str = ""
    """SHA-256 that the peer's certificate must have, in hexadecimal, with or without colons."""
    public_key: str = ""
    """The peer's key of Noise, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """[security]: how links are protected. `mode` holds for all of them, or `inbound` and `outbound` by who dials."""

    mode: str | None = None
    """tls, noise or none."""
    inbound: str | None = None
    """The mode of links that the peer dials; only together with `outbound`."""
    outbound: str | None = None
    """The mode of links that we dial."""
    certificate: str = ""
    """File of our certificate (PEM), with those of intermediate issuers behind it."""
    key: str = ""
    """File of its private key (PEM)."""
    ca: str = ""
    """File of the issuers (PEM) that vouch for every peer without a certificate of its own here."""
    crl: str = ""
    """File of lists of certificates (PEM) that their issuers have revoked: one list of everybody who issues those of
    peers."""
    noise_key: str = ""
    """File of our private key of Noise."""
    pattern: str = PATTERNS[0]
    cipher: str = CIPHERS[0]
    peers: Mapping[str, PeerSecurity] = field(default_factory=dict)

    def of(self, name: str) -> PeerSecurity:
        """What is said of one peer."""
        return self.peers.get(name) or PeerSecurity()

    def mode_of(self, us: str, peer: str) -> str | None:
        """The mode of the link to a peer; None if nothing says it."""
        by_direction = self.outbound if dials(us, peer) else self.inbound
        return self.of(peer).mode or self.mode or by_direction

    def link(self, us: str, peer: str, folder: str) -> LinkSecurity:
        """What protects the link to a peer; paths are relative to `folder`."""
        mode, own = self.mode_of(us, peer), self.of(peer)
        if mode == "noise":
            return LinkSecurity(
                mode=NOISE_MODES[self.pattern, self.cipher],
                noise_key=_path(folder, self.noise_key),
                peer_key=own.public_key.lower(),
            )
        return self.tls_link(peer, folder) if mode == "tls" else LinkSecurity()

    def tls_link(self, peer: str, folder: str) -> LinkSecurity:
        """What protects the link to a peer by TLS."""
        own = self.of(peer)
        return LinkSecurity(
            mode=SecurityMode.TLS,
            certificate=_path(folder, self.certificate),
            key=_path(folder, self.key),
            ca=_path(folder, own.ca or self.ca),
            crl=_path(folder, self.crl),
            peer_certificate=_path(folder, own.certificate),
            fingerprint=own.fingerprint.replace(":", "").lower(),
        )


def _path(folder: str, path: str) -> str:
    return os.path.abspath(os.path.join(folder, path)) if path else ""


def links_of(config: PartyConfig) -> tuple[LinkSecurity, ...]:
    """What protects the link to each party, in index order; empty if no link is protected."""
    if config.security is None:
        return ()
    folder = os.path.dirname(config.path)

    def link(security: SecurityConfig, name: str) -> LinkSecurity:
        if name in config.compat:
            return security.tls_link(name, folder) if speaks_tls(config.compat[name]) else LinkSecurity()
        return security.link(config.name, name, folder) if name != config.name else LinkSecurity()

    return tuple(link(config.security, name) for name in config.parties)


def plaintext_peers(config: PartyConfig) -> list[str]:
    """The peers whose links are not protected."""
    links = links_of(config) or (LinkSecurity(),) * len(config.parties)
    return [
        name
        for name, link in zip(config.parties, links, strict=True)
        if name != config.name and link.mode == SecurityMode.PLAINTEXT
    ]


def links_text(config: PartyConfig) -> str:
    """How the links of a party are protected, in words."""
    links = zip(config.parties, links_of(config), strict=False)
    modes = {link.security_mode for name, link in links if name != config.name}
    return ", ".join(mode_text(mode) for mode in sorted(modes)).replace("none", "plaintext") or "plaintext"


# Problems.


def security_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """Every (key, problem) of `config.security` and of `config.insecure`, which belong together."""
    security: object = config.security
    if isinstance(security, SecurityConfig):
        found = [*_value_problems(security), *_peer_problems(config, security)]
        problems = dict(reversed(found))  # of each key the first: most are missing for every peer alike
        yield from reversed(problems.items())
        if problems:
            return
    elif security is not None:
        yield "security", "must be a SecurityConfig, or a table: [security]"
        return
    elif secured := [name for name, table in config.compat.items() if speaks_tls(table)]:
        yield "security", f"is missing: the table with our certificate and key, for the link to {secured[0]}"
    plaintext = [name for name in plaintext_peers(config) if name not in config.compat]
    if not plaintext or config.insecure or (config.is_loopback and config.insecure is None):
        return
    secure_it = "or give it a table [security] (partywire keygen makes one)"
    if config.insecure is False:
        yield "insecure", f"must be true, because the link to {plaintext[0]} is plaintext; {secure_it}"
    else:
        yield (
            "insecure",
            f"must be set to true, because an address is not on this host and the link to {plaintext[0]} is plaintext; "
            f"{secure_it}",
        )


def _value_problems(security: SecurityConfig) -> Iterable[tuple[str, str]]:
    for key in ("mode", "inbound", "outbound"):
        yield from _choice_problem(f"security.{key}", getattr(security, key), MODES)
    yield from _choice_problem("security.pattern", security.pattern, PATTERNS)
    yield from _choice_problem("security.cipher", security.cipher, CIPHERS)
    if security.mode is not None and (security.inbound or security.outbound):
        yield "security.mode", "must be left out where inbound and outbound are set"
    elif (security.inbound is None) != (security.outbound is None):
        yield "security.inbound", "and outbound must be set together: each by name"


def _choice_problem(key: str, value: str | None, choices: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    if value is not None and value not in choices:
        yield key, f"must be one of {', '.join(choices)}, not {value!r:.40}"


def _peer_problems(config: PartyConfig, security: SecurityConfig) -> Iterable[tuple[str, str]]:
    for name, own in security.peers.items():
        prefix = f"security.peers.{name}"
        if name not in config.parties or name == config.name:
            yield prefix, "is not one of our peers in [parties]"
        elif name in config.compat and not speaks_tls(config.compat[name]):
            yield prefix, f"cannot be: that peer speaks another protocol in the clear, without tls in [compat.{name}]"
        elif name in config.compat:
            for key in ("mode", "public_key"):
                if getattr(own, key):
                    yield f"{prefix}.{key}", f"must be left out: tls in [compat.{name}] says how that link is secured"
        yield from _choice_problem(f"{prefix}.mode", own.mode, MODES)
        for key, value, what in (
            ("fingerprint", own.fingerprint.replace(":", ""), "a SHA-256: 64 hexadecimal digits"),
            ("public_key", own.public_key, "a public key: 64 hexadecimal digits"),
        ):
            if value and not _is_hex_32(value):
                yield f"{prefix}.{key}", f"must be {what}"
    for name in config.parties:
        if name in config.compat:
            if speaks_tls(config.compat[name]):
                certificate_name = config.compat[name].get("certificate_name")
                yield from _missing_for_tls(name, security, certificate_name)
        elif name != config.name:
            yield from _missing(config.name, name, security)


def _is_hex_32(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in text)


def _missing(us: str, peer: str, security: SecurityConfig) -> Iterable[tuple[str, str]]:
    """What the mode of a link needs and nothing says."""
    mode, own = security.mode_of(us, peer), security.of(peer)
    if mode is None:
        yield "security.mode", f"is missing for the link to {peer}: {', '.join(MODES)}"
    elif mode == "tls":
        yield from _missing_for_tls(peer, security)
    elif mode == "noise":
        if not security.noise_key:
            yield "security.noise_key", f"is missing: the link to {peer} is to be secured by Noise"
        if not own.public_key:
            yield f"security.peers.{peer}.public_key", "is missing: without it nothing proves this peer"


def _missing_for_tls(
    peer: str, security: SecurityConfig, certificate_name: str | None = None
) -> Iterable[tuple[str, str]]:
    """What a link of TLS needs and nothing says. `certificate_name`: what the peer's certificate calls it, if that is
    not its name."""
    own = security.of(peer)
    for key in ("certificate", "key"):
        if not getattr(security, key):
            yield f"security.{key}", f"is missing: the link to {peer} is to be secured by TLS"
    if not (own.certificate or own.ca or security.ca):
        instead = f"[security.peers.{peer}] certificate"
        yield "security.ca", f"is missing: without it, or {instead}, nothing proves {peer}"
    if not own.certificate and certificate_name is None and not peer.isascii():
        yield f"security.peers.{peer}.certificate", "is needed: no certificate can hold a name that is not ASCII"
    if own.certificate and certificate_name is not None:
        yield (
            f"compat.{peer}.certificate_name",
            f"must be left out: [security.peers.{peer}] names the very certificate, and no name is looked at",
        )


def announcement(config: PartyConfig) -> tuple[int, str]:
    """What a party says of its links when it starts, with the level of the log."""
    plaintext = plaintext_peers(config)
    if not plaintext:
        return logging.INFO, f"{config.name}: every link is secured"
    which = "links are plaintext" if len(plaintext) == len(config.parties) - 1 else f"plaintext: {', '.join(plaintext)}"
    if config.insecure and not config.is_loopback:
        return logging.WARNING, f"{config.name}: {which} (insecure = true); use a trusted network only"
    return logging.INFO, f"{config.name}: {which}; every address is on this host"


def check_files(config: PartyConfig) -> None:
    """Look at every file and key that our links need, as a party does when it starts.

    Raises:
        ConfigError: names the setting whose file or key cannot be used, and why.
    """
    from partywire.engine.channel.errors import CredentialError

    problems = list(_file_problems(config))
    owners: dict[str, str] = {}  # of what proves a party -> its name
    for peer, link in zip(config.parties, links_of(config), strict=False):
        try:
            if link.security_mode is SecurityMode.TLS:
                problems += _tls_problems(link, config.name, peer, owners)
            elif link.security_mode is not SecurityMode.PLAINTEXT:
                problems += _noise_problems(link, config.name, peer, owners)
        except CredentialError as error:
            problem = (_setting_of(error.path, peer, link), f"{error}")
            if problem not in problems:
                problems.append(problem)
    if not problems:
        try:
            problems += _date_problems(config)
        except CredentialError as error:
            problems.append(("security", f"{error}"))
    if problems:
        raise ConfigError(config.path, tuple(problems))


def _date_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """What was good once, or will be."""
    if (own := own_certificate(config)) is not None and (what := own.problem()):
        yield "security.certificate", f"{own.path} {what}"
    if not (paths := crl_paths(config)):
        return
    from .keygen import revocations_until  # only here: it imports much

    for path in paths:
        until = revocations_until(path)
        if until is not None and until < datetime.datetime.now(datetime.UTC):
            yield "security.crl", f"{path} expired on {until:%Y-%m-%d}; get the next one from the issuer"


def _file_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """Whether others may change the configuration: who can, chooses our peers' keys, or does without any."""
    if not any(link.mode != SecurityMode.PLAINTEXT for link in links_of(config)):
        return
    from partywire.engine.channel.credentials import what_others_may_write

    try:
        status = os.stat(config.path)
    except OSError:
        return  # it is of a program, not of a file, or the file is gone; what it said is known
    if what := what_others_may_write(status):
        yield "", what


def _tls_problems(link: LinkSecurity, us: str, peer: str, owners: dict[str, str]) -> Iterable[tuple[str, str]]:
    """What is wrong with a link of TLS; CredentialError if it is a file."""
    from partywire.engine.channel.credentials import certificates_of, fingerprint_of, tls_context, tls_pin

    tls_context(link, accepts=True)
    pinned = sorted(tls_pin(link, peer).fingerprints)
    owners[fingerprint_of(certificates_of(link.certificate)[0])] = us
    yield from _shared(f"security.peers.{peer}", peer, pinned, owners)


def _noise_problems(link: LinkSecurity, us: str, peer: str, owners: dict[str, str]) -> Iterable[tuple[str, str]]:
    """What is wrong with a link of Noise; CredentialError if it is the file of our key."""
    from partywire.engine.channel.credentials import noise_private_key
    from partywire.engine.noise import PublicKey

    setting = f"security.peers.{peer}.public_key"
    ours = noise_private_key(link.noise_key)
    try:
        ours.exchange(PublicKey(bytes.fromhex(link.peer_key)))
    except ValueError:
        yield setting, "is no public key that can be used: everybody knows what any other key agrees on with it"
    owners[str(ours.public)] = us
    yield from _shared(setting, peer, [link.peer_key], owners)


def _shared(setting: str, peer: str, proofs: Iterable[str], owners: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Whether what is said to prove `peer` proves another party too; adds to `owners`, by proof."""
    for proof in proofs:
        if (other := owners.setdefault(proof, peer)) != peer:
            yield setting, f"is what proves {other}: {peer} and {other} could each speak as the other"


def _setting_of(path: str, peer: str, link: LinkSecurity) -> str:
    """Which setting named a file."""
    for field_, key in (
        ("key", "key"),
        ("certificate", "certificate"),
        ("noise_key", "noise_key"),
        ("crl", "crl"),
        ("peer_certificate", f"peers.{peer}.certificate"),
    ):
        if path == getattr(link, field_):
            return f"security.{key}"
    return "security.ca"


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What our peers will see of us."""

    path: str
    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime

    def problem(self) -> str:
        """Why no peer can accept it now; empty if its dates are good."""
        now = datetime.datetime.now(datetime.UTC)
        if now > self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d}; make a new one (partywire keygen), or correct the clock"
        if now < self.not_before:
            return f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC; wait, or correct the clock"
        return ""


def is_soon(end: datetime.datetime) -> bool:
    """Whether it is time to make the next one of what is good until then."""
    return end - datetime.datetime.now(datetime.UTC) < EXPIRES_SOON


def own_certificate(config: PartyConfig) -> OwnCertificate | None:
    """Our certificate, or None if no link needs one.

    Raises:
        CredentialError: its file cannot be used.
    """
    path = next((link.certificate for link in links_of(config) if link.certificate), "")
    if not path:
        return None
    from cryptography import x509  # only here: links are made without it

    from partywire.engine.channel.credentials import certificates_of
    from partywire.engine.channel.errors import CredentialError

    try:
        certificate = x509.load_der_x509_certificate(certificates_of(path)[0])
    except ValueError as error:
        raise CredentialError(path, f"holds no certificate that can be read ({error})") from None
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(found.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    return OwnCertificate(path, names, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def crl_paths(config: PartyConfig) -> list[str]:
    """The files of lists that a link asks."""
    return sorted({link.crl for link in links_of(config) if link.crl and not link.peer_certificate})


# Files.


def read_security(table: object, problems: list[tuple[str, str]]) -> SecurityConfig | None:
    """The table [security] of a configuration file; adds what is wrong with it to `problems`."""
    if not isinstance(table, dict):
        problems.append(("security", "must be a table: [security]"))
        return None
    found: list[tuple[str, str]] = []
    peers: dict[str, PeerSecurity] = {}
    listed = table.get("peers", {})
    if isinstance(listed, dict):
        for name, own in listed.items():
            if isinstance(own, dict):
                peers[name] = PeerSecurity(**_texts(f"security.peers.{name}", own, PeerSecurity, found))
            else:
                found.append((f"security.peers.{name}", f"must be a table: [security.peers.{name}]"))
    else:
        found.append(("security.peers", "must hold a table for each peer: [security.peers.NAME]"))
    ours = {key: value for key, value in table.items() if key != "peers"}
    values = _texts("security", ours, SecurityConfig, found)
    problems += found
    return None if found else SecurityConfig(**values, peers=peers)


def _texts(
    prefix: str, table: Mapping[str, object], kind: type[Any], problems: list[tuple[str, str]]
) -> dict[str, Any]:
    """Settings that are all text in quotes."""
    known = [field.name for field in fields(kind)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            problems.append((f"{prefix}.{key}", f"is not a setting; known are {', '.join(known)}"))
        elif not isinstance(value, str):
            problems.append((f"{prefix}.{key}", "must be text in quotes"))
        else:
            values[key] = value
    return values


def security_lines(config: SecurityConfig) -> list[str]:
    """The lines of a file that `read_security` reads back as an equal configuration."""
    lines = ["[security]  # how links are protected: docs/security.md"]
    lines += _set_lines(config, SecurityConfig())
    for name, own in config.peers.items():
        lines += ["", f"[security.peers.{_quoted(name)}]", *_set_lines(own, PeerSecurity())]
    return lines


def _set_lines(value: SecurityConfig | PeerSecurity, default: SecurityConfig | PeerSecurity) -> list[str]:
    names = [field.name for field in fields(value) if field.name != "peers"]
    return [
        f"{name} = {_quoted(getattr(value, name))}" for name in names if getattr(value, name) != getattr(default, name)
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
