/** Links: to a view, and to a task, a workflow or a worker. */
import { createContext, type ComponentChildren } from "preact";
import { useContext } from "preact/hooks";
import { href, type Parameter, type Route } from "../route.ts";
import { shortId } from "../text.ts";
import { Text } from "./text.tsx";

/** Links in the rows of a table are not stops of the tab key: the table is one stop. */
export const InRow = createContext(false);

export interface LinkProps {
  readonly to: Partial<Route>;
  readonly children: ComponentChildren;
  readonly class?: string;
  readonly title?: string;
  readonly current?: boolean;
}

export function Link({ to, children, class: className, title, current }: LinkProps) {
  return (
    <a href={href(to)} class={className} title={title} aria-current={current ? "page" : undefined} tabIndex={useContext(InRow) ? -1 : undefined}>
      {children}
    </a>
  );
}

const inCluster = (cluster: string | undefined): readonly Parameter[] => (cluster === undefined ? [] : [["cluster", cluster]]);

export interface TaskLinkProps {
  readonly uuid: string;
  readonly cluster?: string | undefined;
  /** Instead of the short uuid. */
  readonly children?: ComponentChildren;
}

export function TaskLink({ uuid, cluster, children }: TaskLinkProps) {
  return (
    <Link to={{ view: "task", id: uuid, query: inCluster(cluster) }} class={children ? undefined! : "mono"} title={uuid}>
      {children ?? <Text value={shortId(uuid)} max={40} />}
    </Link>
  );
}

export interface WorkflowLinkProps {
  readonly rootId: string;
  readonly cluster?: string | undefined;
  readonly children?: ComponentChildren;
}

export function WorkflowLink({ rootId, cluster, children }: WorkflowLinkProps) {
  return (
    <Link to={{ view: "workflow", id: rootId, query: inCluster(cluster) }} class={children ? undefined! : "mono"} title={rootId}>
      {children ?? <Text value={shortId(rootId)} max={40} />}
    </Link>
  );
}

export interface WorkerLinkProps {
  readonly hostname: string;
  readonly cluster?: string | undefined;
  readonly children?: ComponentChildren;
}

export function WorkerLink({ hostname, cluster, children }: WorkerLinkProps) {
  return (
    <Link to={{ view: "worker", id: hostname, query: inCluster(cluster) }}>
      {children ?? <Text value={hostname} max={80} />}
    </Link>
  );
}
