"""The edge: HTTP in front of the hub. The only place that knows Starlette and waits for clients."""
