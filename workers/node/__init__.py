"""A peer-to-peer node in one object: who we are, where we listen, whom we know, messages and calls (docs/node.md).

A party of secure computation imports none of it. Start reading in `peer_node.py`.
"""

from __future__ import annotations

from ..socks_config import SocksConfig
from .config import NodeConfig, OnionConfig
from .config_file import load_node_config
from .peer_node import PeerNode
from .rpc import NodeRpc

__all__ = ["NodeConfig", "NodeRpc", "OnionConfig", "PeerNode", "SocksConfig", "load_node_config"]
