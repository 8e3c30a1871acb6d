"""The parts of `benchmarks/gateway.py`: an upstream, a client, and the gateways between them."""
