"""An ordinary MPyC program, which knows nothing of PartyWire. Its argument says how it ends."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from typing import Any

from mpyc.runtime import mpc

secint = mpc.SecInt(32)
secfld = mpc.SecFld(2**61 - 1)


async def results() -> dict[str, Any]:
    inputs = mpc.input(secint(10 + mpc.pid))
    total = await mpc.output(mpc.sum(inputs))
    largest = await mpc.output(mpc.max(inputs))
    products = [mpc.input(secfld(k + 1), senders=0) ** 3 for k in range(100)]
    chain = secint(1)
    for k in range(1, 8):
        chain = chain * secint(k)
        await mpc.gather(chain)
    found = {
        "spared": gc.get_freeze_count() > 1000,
        "sum": int(total),
        "max": int(largest),
        "products": sum(int(value) for value in await mpc.output(products)),
        "chain": int(await mpc.output(chain)),
        "large": [len(part) for part in await mpc.transfer(bytes(3_000_000 + mpc.pid))],
        "random": await mpc.output(mpc.random.getrandbits(secint, 1)) in (0, 1),  # of the keys that were exchanged
    }
    if not mpc.options.no_numpy:
        import numpy as np

        matrix = mpc.input(secint.array(np.arange(6).reshape(2, 3)), senders=0)
        found["matrix"] = (await mpc.output(matrix @ matrix.T)).tolist()
    return found


async def main(how: str) -> None:
    async with mpc:
        if how == "results":
            found = await results()
            print(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:], "name": __name__, **found}), flush=True)
            return
        chain = secint(1)
        while True:
            chain = chain * chain
            if mpc.pid == 1:
                await mpc.output(chain)
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("what only party 1 knows")
            await mpc.output(chain)


if __name__ == "__main__":
    mpc.run(main(sys.argv[1]))
