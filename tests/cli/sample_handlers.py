"""Handlers that behave and misbehave, for the tests of the service; found as `sample_handlers:app` from this folder."""

from __future__ import annotations

import asyncio
import os
import threading

from partywire import Handlers

app = Handlers()


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/forever")
async def wait_forever() -> None:
    await asyncio.Event().wait()


@app.get("/blocked")
def block_forever() -> None:
    threading.Event().wait()


@app.get("/broken")
def fail() -> None:
    raise ArithmeticError("the secret is 42")


@app.get("/unspeakable")
async def unspeakable() -> object:
    return object()
