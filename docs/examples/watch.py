"""A party that writes down what happens to its links. Run it at every party: python watch.py CONFIG"""

import logging
import sys

from partywire import BlockingParty, LinkEvent, LinkEventKind

log = logging.getLogger("links")


def on_event(event: LinkEvent) -> None:
    if event.dropped:
        log.warning("%d events were dropped before this one", event.dropped)
    failed = event.kind in (LinkEventKind.RESOLVE_FAILED, LinkEventKind.CONNECT_FAILED)
    level = logging.WARNING if failed or event.cause else logging.INFO
    log.log(level, "%s: %s at %s %s", event.kind.value, event.peer, event.address, event.cause)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with BlockingParty(sys.argv[1], on_event=on_event) as party:
        party.barrier()
