"""The table [http] of a party's configuration: where to serve, what, and within which limits.

Between the person who writes the file and `partywire serve`. The one invariant: an HttpConfig that exists can be used
as it stands, but for what only the machine can say (whether the address is free, whether the files are there).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.addresses import is_loopback, is_unix, parse_address, unix_path
from partywire.engine.http_options import KIB, MIB, HttpOptions

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNIX_PREFIX: Final = "unix:"

TOKEN_LENGTH_MIN: Final = 16
"""Characters of a token: what a person would make up as a password is refused."""

TOKEN_FILE_SIZE_MAX: Final = 4096

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+\Z")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")

LIMITS: Final[dict[str, tuple[str, int, float, float]]] = {
    # key -> field of HttpOptions, unit, least, most
    "connections": ("connections_max", 1, 1, 10_000),
    "in_flight": ("in_flight_max", 1, 1, 10_000),
    "head_kib": ("head_size_max", KIB, 1, 60),
    "body_mib": ("body_size_max", MIB, 1, 1024),
    "answer_mib": ("answer_size_max", MIB, 1, 1024),
    "buffer_mib": ("buffer_size_max", MIB, 1, 65_536),
}
TIMES: Final = {
    "header_s": "header_timeout_s",
    "body_s": "body_timeout_s",
    "answer_s": "answer_timeout_s",
    "send_s": "send_timeout_s",
    "idle_s": "idle_timeout_s",
}
TIME_MIN_S, TIME_MAX_S = 0.05, 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """What a party serves over HTTP. Raises ConfigError when the values cannot work together."""

    listen: str = "127.0.0.1:8080"
    """"host:port", "unix:/path/of/socket", or either as a multiaddress: "/ip4/127.0.0.1/tcp/8080"."""
    jobs: tuple[str, ...] = ()
    """The jobs that may be run here; a job that another party's client submits is refused if it is not listed."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """Job -> this party's own options for it, such as paths to its data. No client can set them."""
    handlers: str = ""
    """"package.module:name" of a Handlers of the user's own."""
    token_file: str = ""
    """A file with the bearer token that every request must carry."""
    insecure: bool = False
    """True allows an address that other hosts can reach: there is no TLS."""
    limits: HttpOptions = field(default_factory=HttpOptions)
    path: str = field(default="", compare=False)
    """The configuration file: a relative token_file is beside it."""

    def __post_init__(self) -> None:
        problems = tuple((f"http.{key}", problem) for key, problem in _problems_of(self))
        if problems:
            raise ConfigError(self.path, problems)

    @property
    def unix_path(self) -> str | None:
        """The path to listen at, or None for a TCP address."""
        if self.listen.startswith("/"):
            host, _ = parse_address(self.listen, listening=True, port_min=0)
            return unix_path(host) if is_unix(host) else None
        return self.listen.removeprefix(UNIX_PREFIX) if self.listen.startswith(UNIX_PREFIX) else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen at, as in `addresses`."""
        if self.listen.startswith("/"):
            return parse_address(self.listen, listening=True, port_min=0)
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)

    @property
    def is_private(self) -> bool:
        """Whether only this host can reach the address."""
        return self.unix_path is not None or is_loopback(self.address[0])

    def token_digest(self) -> bytes:
        """SHA-256 of the token; empty without a token_file. Reads the file.

        Raises:
            ConfigError: the file cannot be read, or others may, or there is no usable token in it.
        """
        if not self.token_file:
            return b""
        path = Path(self.path).parent / self.token_file
        try:
            if path.stat().st_mode & 0o077:
                raise self._token_error(f"{path} can be read by others; chmod 600 it")
            text = path.read_bytes()[: TOKEN_FILE_SIZE_MAX + 1].decode("ascii").strip()
        except OSError as error:
            raise self._token_error(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise self._token_error(f"{path} does not hold a token: it is not ASCII text") from None
        if not TOKEN_LENGTH_MIN <= len(text) <= TOKEN_FILE_SIZE_MAX or not _TOKEN.match(text):
            raise self._token_error(
                f"{path} does not hold a token: it needs at least {TOKEN_LENGTH_MIN} letters, digits or . _ ~ + / = -"
            )
        return hashlib.sha256(text.encode("ascii")).digest()

    def _token_error(self, problem: str) -> ConfigError:
        return ConfigError(self.path, (("http.token_file", problem),))


def _problems_of(config: HttpConfig) -> Iterable[tuple[str, str]]:
    if config.listen.startswith("/"):
        yield from _multiaddr_problems(config)
    elif config.unix_path is not None:
        if not config.unix_path.startswith("/") or len(config.unix_path.encode()) > 107:
            yield "listen", "the path of a unix socket must begin with / and have at most 107 bytes"
    else:
        host, separator, port = config.listen.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not separator or not bare or not (port.isascii() and port.isdigit() and int(port) <= 65535):
            yield "listen", f"{config.listen!r} is neither host:port, unix:/path nor a multiaddress"
        elif (":" in bare) != host.startswith("["):
            yield "listen", f"{config.listen!r} needs brackets around an IPv6 address, as in [::1]:8080"
        elif not config.insecure and not is_loopback(bare):
            yield "insecure", f"must be true to serve at {host}: other hosts can reach it, and there is no TLS"
    for job in config.options:
        if job not in config.jobs:
            yield f"options.{job}", "is not one of http.jobs"
    if len(set(config.jobs)) != len(config.jobs):
        yield "jobs", "lists a job twice"
    if config.handlers and not _TARGET.match(config.handlers):
        yield "handlers", f"{config.handlers!r} is not package.module:name"
    if config.limits.in_flight_max > config.limits.connections_max:
        yield "in_flight", "is more than http.connections; a connection has one request at a time"
    if config.limits.buffer_size_max < max(config.limits.body_size_max, config.limits.answer_size_max):
        yield "buffer_mib", "is less than one body or answer may have (http.body_mib, http.answer_mib)"


def _multiaddr_problems(config: HttpConfig) -> Iterable[tuple[str, str]]:
    try:
        host, _ = parse_address(config.listen, listening=True, port_min=0)
    except ValueError as error:
        yield "listen", str(error)
        return
    if not config.insecure and not is_loopback(host):
        yield "insecure", f"must be true to serve at {config.listen}: other hosts can reach it, and there is no TLS"


def read_http(table: object, path: str, problems: list[tuple[str, str]]) -> HttpConfig | None:
    """The table [http] of a configuration file; adds what is wrong with it to `problems`."""
    if not isinstance(table, dict):
        problems.append(("http", "must be a table: [http]"))
        return None
    found: list[tuple[str, str]] = []
    texts = ("listen", "handlers", "token_file")
    values: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for key, value in table.items():
        if key in texts:
            _take(values, key, value, isinstance(value, str), "text in quotes", found)
        elif key == "insecure":
            _take(values, key, value, isinstance(value, bool), "true or false", found)
        elif key == "jobs":
            is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
            _take(values, key, tuple(value) if is_list else value, is_list, "a list of names in quotes", found)
        elif key == "options":
            is_tables = isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())
            _take(values, key, value, is_tables, "tables: [http.options.JOB]", found)
        elif key in LIMITS:
            name, unit, least, most = LIMITS[key]
            is_good = type(value) is int and least <= value <= most
            wanted = f"a whole number, {least} to {most}"
            _take(limits, name, value * unit if is_good else 0, is_good, wanted, found, key)
        elif key in TIMES:
            is_good = type(value) in (int, float) and TIME_MIN_S <= value <= TIME_MAX_S
            _take(limits, TIMES[key], value, is_good, f"seconds, {TIME_MIN_S} to {TIME_MAX_S:.0f}", found, key)
        else:
            known = ", ".join((*texts, "insecure", "jobs", "options", *LIMITS, *TIMES))
            found.append((key, f"is not a setting; known are {known}"))
    problems += [(f"http.{key}", problem) for key, problem in found]
    if found:
        return None
    try:
        return HttpConfig(**values, limits=HttpOptions(**limits), path=path)
    except ConfigError as error:
        problems += error.problems
        return None


def _take(
    values: dict[str, Any],
    name: str,
    value: Any,
    is_good: bool,
    wanted: str,
    problems: list[tuple[str, str]],
    key: str = "",
) -> None:
    if is_good:
        values[name] = value
    else:
        problems.append((key or name, f"must be {wanted}"))


def http_lines(config: HttpConfig) -> list[str]:
    """The lines of a file that `read_http` reads back as an equal configuration."""
    lines = ["[http]  # what `partywire serve` offers", f"listen = {json.dumps(config.listen, ensure_ascii=False)}"]
    lines.append(f"jobs = {json.dumps(list(config.jobs), ensure_ascii=False)}")
    texts = {key: getattr(config, key) for key in ("handlers", "token_file")}
    lines += [f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in texts.items() if text]
    if config.insecure:
        lines.append("insecure = true  # other hosts can reach the address, and there is no TLS")
    lines += [f"{key} = {getattr(config.limits, name) // unit}" for key, (name, unit, _, _) in LIMITS.items()]
    lines += [f"{key} = {getattr(config.limits, name)}" for key, name in TIMES.items()]
    for job, options in config.options.items():
        lines += ["", f"[http.options.{json.dumps(job, ensure_ascii=False)}]"]
        lines += [f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items()]
    return lines
