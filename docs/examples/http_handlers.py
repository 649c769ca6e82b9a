from dataclasses import dataclass

from partywire import Handlers, HttpError

app = Handlers()


@dataclass
class Basket:
    prices: list[float]
    currency: str = "EUR"


@dataclass
class Total:
    total: float
    currency: str


@app.get("/hello/{name}")
async def hello(name: str, times: int = 1) -> dict[str, str]:
    """Greet somebody, as often as ?times= says."""
    return {"greeting": "hello " * times + name}


@app.post("/total")
def total(body: Basket) -> Total:
    """Add prices up. A plain function runs in a thread, so it may compute or block."""
    if not body.prices:
        raise HttpError(422, "a basket has at least one price")
    return Total(sum(body.prices), body.currency)
