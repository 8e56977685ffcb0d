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
      task_statistics   the counts of the table
      task_record       a task, its attempts and its place in the table
      join_buffer       events that wait for the name of their task
      task_names        names of tasks, and events joined with them
      task_graph        workflows by root, children by parent
      eviction          which task is evicted next
    current_records     the record of one task, encoded for streams
    scan, workflow      many records as of one moment; a workflow as a tree

Where a worker's status changes:

    worker_table        one entry for each worker; which processes are gone
      worker_status     online, stopping, silent, offline or unknown
      process_timers    when a process is checked next
    process             one life of a worker's process
    worker              the worker record
    worker_roster       all workers, encoded for snapshots
"""
