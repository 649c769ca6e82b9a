"""Options that several subcommands have, and what they mean together.

Between the command line and `partywire run` and `partywire serve`, so that both understand the same words alike.
"""

from __future__ import annotations

import click

from .exit_code import UsageMistake
from .logs import LOG_FORMATS, LOG_LEVELS
from .retry import RETRIES_DEFAULT, RETRIES_MAX, RETRY_TIMEOUT_S
from .security import MODES


def security_option() -> click.Option:
    """--security, for parties that all run on this host."""
    return click.Option(
        ["--security"],
        type=click.Choice(MODES),
        help="How a local run secures its links, with new keys that end with it.  [default: none]",
    )


def log_options() -> list[click.Option]:
    """--log-format and --log-level, as `log_format` and `log_level`, for every command that runs a party."""
    return [
        click.Option(
            ["--log-format"],
            type=click.Choice(LOG_FORMATS),
            default="text",
            show_default=True,
            help="What standard error carries: text for people, or one JSON object a line.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LOG_LEVELS),
            help="The least that is logged.  [default: info for json, warning for text]",
        ),
    ]


def retry_options() -> list[click.Parameter]:
    """--retries, --no-retry and --retry-timeout; `retrying` says what comes of them."""
    return [
        click.Option(
            ["--retries"],
            type=click.IntRange(0, RETRIES_MAX),
            metavar="N",
            help="How often jobs run again that a lost link, a dead process or a time-out ended; the same at all "
            f"parties.  [default: {RETRIES_DEFAULT}]",
        ),
        click.Option(["--no-retry"], is_flag=True, help="Fail at once instead, like --retries 0."),
        click.Option(
            ["--retry-timeout"],
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            default=RETRY_TIMEOUT_S,
            show_default=True,
            help="How long a lost link or a dead process may be away before what waits for it fails.",
        ),
    ]


def retrying(retries: int | None, no_retry: bool) -> int:
    """How often jobs may run again.

    Raises:
        UsageMistake: both options were given and contradict each other.
    """
    if no_retry and retries:
        raise UsageMistake("--retries and --no-retry exclude each other")
    if no_retry:
        return 0
    return RETRIES_DEFAULT if retries is None else retries


def refuse_security_with_config(security: str | None) -> None:
    """A party of a configuration has the security that its file says.

    Raises:
        UsageMistake: another one was asked for.
    """
    if security is not None:
        raise UsageMistake("--security is for --local; a configuration has a table [security] for it")
