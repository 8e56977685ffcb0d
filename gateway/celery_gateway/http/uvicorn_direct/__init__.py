"""The integration with uvicorn: connections that write streams directly, within limits.

Rules: only this folder touches uvicorn's protocols, and only ``http.server`` and ``http.shutdown`` import
uvicorn beside it. Only ``http.server`` imports this folder; all else works without the internals below. They
may change in any version of uvicorn or websockets, so ``self_test`` carries one stream of each kind at the
start, over a pair of sockets within the process; if that fails, the server uses uvicorn's own connections.
(That all names exist proves little: uvicorn 0.52.0 has most of them, and closes each WebSocket.)

Attributes that the connections rely on (versions: docs/dependencies.md):

- uvicorn, ``HttpToolsProtocol``

  - extended: ``connection_made``, ``data_received``, ``connection_lost``, ``pause_writing``,
    ``resume_writing``, ``shutdown``, ``timeout_keep_alive_handler``, ``on_message_begin``, ``on_url``,
    ``on_header``, ``on_headers_complete``, ``on_body``, ``on_message_complete``, ``on_response_complete``,
    ``_start_asgi_task``;
  - called: ``handle_websocket_upgrade``, ``_should_upgrade``, ``_unsupported_upgrade_warning``,
    ``_unset_keepalive_if_required``;
  - used: ``client``, ``config``, ``cycle``, ``flow.read_paused``, ``headers``, ``parser.feed_data``,
    ``pipeline``, ``scope``, ``transport``, ``url``.

- uvicorn, ``RequestResponseCycle``: ``body``, ``chunked_encoding``, ``disconnected``, ``keep_alive``,
  ``message_event``, ``on_response``, ``response_complete``, ``scope``.
- uvicorn, ``WebSocketsSansIOProtocol``

  - extended: ``connection_made``, ``data_received``, ``connection_lost``, ``pause_writing``,
    ``resume_writing``, ``handle_bytes``, ``handle_close``, ``handle_connect``, ``handle_cont``,
    ``handle_parser_exception``, ``handle_text``, ``send``, ``send_receive_event_to_app``;
  - used: ``client``, ``close_sent``, ``close_timer``, ``config``, ``conn``, ``curr_msg_data_type``,
    ``frames``, ``handshake_complete``, ``handshake_initiated``, ``initial_response``, ``loop``, ``queue``,
    ``read_paused``, ``request``, ``response``, ``scope``, ``transport``;
  - and: while ``close_timer`` is set, the connection stays open when the application returns.

- websockets, ``ServerProtocol`` (``conn`` above): ``data_to_send``, ``parser_exc``, ``reader.buffer``,
  ``reject`` (also called by its ``accept``), ``send_close``, ``state``; ``Frame``: ``data``, ``fin``;
  ``Response``: ``headers``.
- httptools: ``HttpParserError``, ``HttpParserUpgrade`` and its offset in the data.
- ``http.shutdown`` reads ``Server.shutdown``, ``Server.server_state.connections``, and of each connection
  ``cycle.scope``, ``responding_cycle.scope`` (ours) or ``scope``, and ``transport``.
"""
