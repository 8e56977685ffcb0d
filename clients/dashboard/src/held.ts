/** A list of tasks whose rows stay where they are: they change in place, and new ones wait until they are asked for. */
import { useRef, useState } from "preact/hooks";
import type { Task, TaskList } from "../../js/src/types.ts";
import { listPause, useWatch } from "./gateway.ts";
import { hold, type Hold } from "./hold.ts";
import { literal } from "./route.ts";

export interface Held {
  readonly rows: readonly Task[];
  /** How many new tasks wait. */
  readonly arrived: number;
  readonly isFollowing: boolean;
  /** Show them. */
  readonly release: () => void;
  readonly toggle: () => void;
}

/** The most patterns of a filter. */
const MAX_WATCHED = 1_000;

export const taskKey = ({ uuid, cluster }: Task): string => (cluster === undefined ? uuid : `${cluster}/${uuid}`);

/**
 * Hold the rows of a list.
 *
 * @param key what the list is about: another key begins with all rows.
 */
export function useHeld(value: TaskList | null, key: string): Held {
  const [isFollowing, follow] = useState(false);
  const [, redraw] = useState(0);
  const state = useRef<{ key: string; hold: Hold<Task> | null }>({ key, hold: null });
  if (state.current.key !== key) state.current = { key, hold: null };
  const before = isFollowing ? null : state.current.hold;
  // Rows that have left the list, such as tasks that have ended, are watched by their ids.
  const left = before?.hasLeft ? before.rows.slice(0, MAX_WATCHED).map(({ uuid }) => literal(uuid)) : [];
  const others = useWatch((client) => (left.length ? client.tasks({ uuid: left }, { limit: left.length }) : null), left.join(","), listPause);
  const release = (): void => {
    state.current.hold = null;
    redraw((number) => number + 1);
  };
  const toggle = (): void => {
    follow(!isFollowing);
    release();
  };
  if (!value) return { rows: [], arrived: 0, isFollowing, release, toggle };
  const next = hold(before, value.tasks, value.arrived, taskKey, others.value?.tasks);
  state.current.hold = next;
  return { rows: next.rows, arrived: next.waiting, isFollowing, release, toggle };
}
