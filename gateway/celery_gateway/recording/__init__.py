"""Recordings: files with the events of a gateway's stream, written by ``record`` and read by ``replay``.

- ``compression``: the compressed forms of such a file; ``recording_file``: its header and lines.
- ``own_fields``: events as they were sent; ``playback``: the events of a file, with the times at which they
  are due.

Rules: a file is read and written in constant memory. What was written can be read up to there, whatever ended
the writing. Nothing here knows a broker, a server or a command.
"""
