"""Imported first by processes that have to start fast or live long: keeps out what is only for people at a terminal.

structlog imports rich when it is there, for tracebacks in colour; that costs 9 MiB and 0.15 s in every process (who draws on a
terminal imports it later). aiohttp reads all root certificates of the system at import, for clients that give no TLS context; ours
always do. Python looks for cyclic garbage after 700 new objects, which costs a third of a list of thousands; there is little of it.
"""

import gc
import ssl
import sys

if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog.dev  # noqa: F401

    del sys.modules["rich"]
gc.set_threshold(20_000, 10, 10)
_load = ssl.SSLContext.load_default_certs
ssl.SSLContext.load_default_certs = lambda self, purpose=ssl.Purpose.SERVER_AUTH: None  # type: ignore[method-assign]
ssl.SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]
try:
    import aiohttp.connector  # noqa: F401
finally:
    ssl.SSLContext.load_default_certs = _load  # type: ignore[method-assign]
    del ssl.SSLContext.set_default_verify_paths  # the one that is inherited is back
