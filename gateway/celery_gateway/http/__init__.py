"""HTTP: requests, responses, endpoints, and the integration with uvicorn.

Rules: only this folder and ``asgi`` import Starlette. Only ``server``, ``shutdown`` and ``uvicorn_direct``
touch uvicorn.

- Server: ``server``, ``listener``, ``shutdown``, ``interrupt``; HTTPS: ``tls``, ``tls_transport``.
- Connections: ``uvicorn_direct``; limits on them: ``guard``, ``input_turns``, ``request_limits``; interface
  for the application: ``direct_transport``.
- Application: ``app``; around it: ``allowed_hosts``, ``origin``, ``headers``, ``proxy_headers``,
  ``query_secrets``, ``root_path``.
- Streams: ``stream_endpoints``, ``stream_query``, ``query_params``, ``query_json``, ``report_query``,
  ``subscribe``, ``stream_response``, ``websocket``, ``websocket_session``.
- State: ``state_endpoints``, ``state_query``, ``state_tasks``, ``state_workflow``, ``state_responses``,
  ``query_values``, ``page_tokens``, ``task_selection``, ``task_counts``, ``workflow_query``,
  ``workflow_list``, ``workflow_selection``, ``fair_share``, ``json_response``, ``id_path``.
- Statistics: ``statistics_endpoints``, ``statistics_query``, ``state_work``.
- Queues and actions: ``queue_endpoints``; ``action_endpoints``, ``action_query``;
  ``broker_access``.
- Dashboard: ``dashboard_endpoints``, ``dashboard``, ``views``; its files, which ``make dashboard`` builds:
  ``dashboard_files``.
- Service: ``service_endpoints``, ``metrics``, ``metrics_table``, ``metrics_sum``. Errors of all: ``errors``.
"""
