"""The workers' mailboxes: a command out, the answers in."""
