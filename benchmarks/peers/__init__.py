"""What `routers_vs_peers.py` measures: ours and other people's algorithms, alike."""
