"""What events report about tasks, workflows and workers. Pure: no I/O, no clock of its own.

Where a task's state changes:

    lifecycle           apply an event to a task; mark it lost
      attempt_matching  which attempt of the task the event belongs to
      transitions       whether the attempt moves to another state
      task_fields       which other fields of the record the event sets
    attempt             the attempts of a task, and the current one
    task                the task record, and its JSON

Where tasks are kept:

    task_table          one record for each task; events joined with it
      replicated_table  the same, where another gateway joins the events
      task_index        lookups of the table
      task_statistics   the counts of the table
      task_record       a task, its attempts and its place in the table
      join_buffer       events that wait for the name of their task
      task_names        names of tasks, and events joined with them
      task_graph        workflows by root, children by parent
        workflow_counts the counts that a workflow keeps, and its state
        visible_workflow  the same, of the tasks that a scope shows
      eviction          which task is evicted next
    activity            how many tasks are where now; what has happened by time
      name_activity     the same of one name
      activity_report   the same as a scope shows it
      time_buckets      counts by time
      duration_history  runtimes and waits by time
      quantile_sketch   quantiles of durations
      lanes             many counts in one integer
      failure_groups    failures by signature
      failure_signature what failures with one cause have in common
      failure_report    failures as a scope shows them
    current_records     the record of one task, encoded for streams
    scan, workflow      many records as of one moment; a workflow as a tree
    criteria            a text, times and numbers that a task has to have
    task_order          the orders in which tasks are listed

Where a worker's status changes:

    worker_table        one entry for each worker; which processes are gone
      worker_status     online, stopping, silent, offline or unknown
      process_timers    when a process is checked next
    process             one life of a worker's process
      task_event_evidence  whether it sends task events
    worker              the worker record
    worker_roster       all workers, encoded for snapshots
    worker_changes      workers that have changed, with numbered_changes
"""
