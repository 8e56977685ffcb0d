// A workflow as a tree, and what fails anywhere, live. index.html?root_id=…&url=http://localhost:8555
import { connect } from "@celery-gateway/client";
import { GatewayProvider, useEvents, useStatus, useWorkflow } from "@celery-gateway/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);
const client = connect({ url: query.get("url") ?? "http://localhost:8555" });

function Tasks({ tasks }) {
  return (
    <ul>
      {tasks.map((task) => (
        <li key={task.uuid}>
          {task.name} {task.state}
          {task.children.length > 0 && <Tasks tasks={task.children} />}
        </li>
      ))}
    </ul>
  );
}

function Workflow({ rootId }) {
  const workflow = useWorkflow(rootId);
  if (workflow === null) return <p>Nothing is known of {rootId ?? "it: add ?root_id=… to the address"}.</p>;
  return (
    <section>
      <progress value={workflow.progress} /> {workflow.ready} of {workflow.total}
      <Tasks tasks={workflow.tasks} />
    </section>
  );
}

function Failures() {
  const failures = useEvents({ type: "task-failed" }, { limit: 10 });
  return (
    <ol>
      {failures.map(({ id, name, exception }) => (
        <li key={id}>
          {name}: {exception}
        </li>
      ))}
    </ol>
  );
}

function Status() {
  return <p role="status">{useStatus()}</p>;
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <GatewayProvider client={client}>
      <Status />
      <Workflow rootId={query.get("root_id")} />
      <Failures />
    </GatewayProvider>
  </StrictMode>,
);
