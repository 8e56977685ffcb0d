"""From the bytes of a broker message to events, and filters of events. Pure."""
