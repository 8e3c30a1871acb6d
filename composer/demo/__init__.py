"""The demo: real models measured, a router learned, fresh questions routed."""
