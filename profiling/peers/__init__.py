"""Every peer, in the order in which tables show them."""

from profiling.interpreters import Interpreter
from profiling.peers.base import Entrant, Launch, Peer, Product
from profiling.peers.baseline import BASELINE
from profiling.peers.django_bolt import DJANGO_BOLT
from profiling.peers.fastapi import FASTAPI
from profiling.peers.granian import GRANIAN_ASGI, GRANIAN_RSGI
from profiling.peers.robyn import ROBYN
from profiling.peers.treadle import TREADLE, TREADLE_UNTIMED
from profiling.peers.turboapi import TURBOAPI

PEERS = (
    TREADLE,
    TREADLE_UNTIMED,
    BASELINE,
    TURBOAPI,
    GRANIAN_RSGI,
    GRANIAN_ASGI,
    FASTAPI,
    DJANGO_BOLT,
    ROBYN,
)

_BY_PRODUCT = {peer.product: peer for peer in PEERS}


def peer_of(product: Product) -> Peer:
    """Return the peer that stands for a product."""
    return _BY_PRODUCT[product]


def entrants(products: frozenset[Product], sides: tuple[Interpreter, ...]) -> list[Entrant]:
    """Every chosen peer on every chosen interpreter it exists for, in the order of tables."""
    return [
        Entrant(peer, interpreter)
        for peer in PEERS
        for interpreter in (Interpreter.NATIVE, *sides)
        if peer.product in products and interpreter in peer.interpreters
    ]


__all__ = ["PEERS", "Entrant", "Launch", "Peer", "Product", "entrants", "peer_of"]
