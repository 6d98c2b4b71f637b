"""Structured logs: one constant event name and key/value pairs, as JSON lines or for a console."""

from __future__ import annotations

import logging
import sys

import structlog

STYLES = ("json", "console")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up_logging(style: str, level: str) -> None:
    """`style` is json or console, `level` one of `LEVELS`. Raises `ValueError` for others."""
    if style not in STYLES:
        raise ValueError(f"log format {style!r}: it must be json or console")
    if level not in LEVELS:
        raise ValueError(f"log level {level!r}: it must be one of {', '.join(LEVELS)}")
    renderer: structlog.typing.Processor
    if style == "json":
        renderer = structlog.processors.JSONRenderer()
        tail: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, renderer]
    else:
        tail = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tail,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
