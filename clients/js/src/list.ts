/** A list of tasks: pages of `GET /tasks`, kept current by the records of events. */
import { after, nothing, nowMs } from "./environment.js";
import { type GatewayError, isFinal } from "./errors.js";
import type { Live, Model } from "./feed.js";
import { type Patterns, parse } from "./filter.js";
import type { Request } from "./http.js";
import { backoffMs } from "./poll.js";
import { paramsOf, selector } from "./select.js";
import { begunAt, outlive } from "./task.js";
import type { Filter, Task, TaskList, TaskListOptions } from "./types.js";
import { keyOf, shrink } from "./values.js";

const enum Ms {
  PACE = 50,
  /** Between two requests that fill the list again, after rows have left it. */
  REFILL = 2_000,
  /** Between two requests in an order that events cannot keep, or of ages: tasks come and go as time goes by. */
  REORDER = 5_000,
  /** Between two requests because of gaps. */
  REFRESH = 1_000,
}
const enum Max {
  LIMIT = 1_000,
  /** Of rows that are shown. */
  ROWS = 10_000,
  /** Records that arrive during a request. */
  TOUCHED = 10_000,
}
/** The fields that a task keeps: an event that does not pass cannot be of a task of the list. */
const KEPT = ["name", "root_id", "parent_id", "uuid", "cluster"] as const;

interface Row {
  task: Task;
  isIn: boolean;
}

/**
 * Return a function that returns a model of a list.
 *
 * - The page is requested once events arrive. The records that arrive meanwhile are applied after it: each of them is
 *   newer than the page, or another one follows that is.
 * - Each event changes its row only. Rows that have left are removed, and the end of a long list is cut, once for each
 *   value. Rows beyond those that are shown take the places of rows that leave.
 *
 * @param now returns the epoch seconds from which ages count.
 * @throws TypeError or RangeError for an invalid filter or comparison.
 */
export function taskList(get: Request, filter: Filter, options: TaskListOptions, now: () => number = () => Date.now() / 1_000): () => Model<TaskList> {
  const { sort = "newest", limit: given = 100 } = options;
  const limit = Math.min(Math.max(1, Math.trunc(given) || 1), Max.LIMIT);
  const [patterns = {}] = parse(filter);
  const params = paramsOf(filter, { ...options });
  const kept = Object.fromEntries(KEPT.flatMap((field) => (patterns[field] ? [[field, patterns[field]]] : [])));
  const filters: Patterns[] = [{ ...kept, type: ["!worker-*"] }];
  const selects = selector(filter, options, now);
  const hasAge = /[smhd]/.test([options.since, options.before].join());

  return () => {
    let known = new Map<string, Row>();
    let order: Row[] = [];
    let wanted = limit;
    let arrived = 0;
    let isLoaded = false;
    /** Of the next page; `null` after the last one, and "" if it has to begin at the top. */
    let cursor: string | null = "";
    /** Of a request by an id, which finds this task only. */
    let only: string | undefined;
    /** The records that have arrived during a request, and the rows before it. */
    let touched: Map<string, Task> | undefined;
    let former: ReadonlyMap<string, Row> | undefined;
    let loads: Promise<void> = Promise.resolve();
    let isPlanned = false;
    let isReloadDue = false;
    let loadedAtMs = -Infinity;
    let failures = 0;
    let cancel = nothing;
    let live: Live | undefined;
    const ending = new AbortController();

    /** Return whether anything has changed. */
    const put = (key: string, task: Task): boolean => {
      const row = known.get(key);
      const isIn = selects(task) && (!only || task.uuid === only);
      if (row?.isIn || isIn) changedOrder();
      if (row) {
        const wasIn = row.isIn;
        Object.assign(row, { task, isIn });
        return wasIn || isIn;
      }
      return isIn && insert(key, { task, isIn });
    };
    const insert = (key: string, row: Row): boolean => {
      let place = order.length;
      if (sort === "newest") {
        const begun = begunAt(row.task);
        place = order.findIndex(({ task }) => begunAt(task) <= begun);
        if (place < 0) place = order.length;
      } else if (sort !== "oldest") return false;
      if (place === order.length && cursor !== null) return false; // it is on a later page
      order.splice(place, 0, row);
      known.set(key, row);
      if (!former?.has(key)) arrived++;
      return true;
    };

    /** Events cannot keep this order: fetch it again, later. */
    const changedOrder = (): void => {
      if (sort !== "newest" && sort !== "oldest") plan(Ms.REORDER);
    };

    const plan = (pauseMs: number, isReload = true): void => {
      isReloadDue ||= isReload;
      if (isPlanned || !live) return;
      isPlanned = true;
      cancel = after(Math.max(0, loadedAtMs + pauseMs - nowMs()), () => {
        isPlanned = false;
        const isWhole = isReloadDue;
        isReloadDue = false;
        void load(isWhole).then(
          () => (failures = 0),
          (error: GatewayError) => {
            if (ending.signal.aborted) return;
            if (isFinal(error.status)) return live!.fail(error);
            cursor = ""; // begin again
            loadedAtMs = nowMs();
            plan(backoffMs(++failures));
          },
        );
      });
    };

    /** Load pages until there are as many rows as wanted, one load at a time. */
    const load = (isReload: boolean): Promise<void> =>
      (loads = loads.catch(nothing).then(async () => {
        let isFirst = isReload || cursor === "";
        if (!isFirst && (cursor === null || order.length >= wanted)) return;
        touched = new Map();
        try {
          do {
            const missing = isFirst ? wanted : wanted - order.length;
            const page = await get(
              "/tasks",
              { ...params, limit: Math.min(Max.LIMIT, missing), cursor: isFirst ? undefined : cursor! },
              ending.signal,
            );
            take(page.tasks, isFirst);
            cursor = page.cursor;
            isFirst = false;
          } while (cursor && order.length < wanted);
          for (const [key, task] of touched) put(key, task);
          isLoaded = true;
        } finally {
          touched = former = undefined;
          loadedAtMs = nowMs();
        }
        live?.answered();
        if (hasAge) plan(Ms.REORDER);
      }));

    /** Take a page; a row that has changed meanwhile stays as it is. */
    const take = (tasks: readonly Task[], isFirst: boolean): void => {
      if (isFirst) {
        former = known;
        known = new Map();
        order = [];
        only = tasks.length === 1 && tasks[0]!.uuid === options.q ? options.q : undefined;
      }
      for (const task of tasks) {
        const key = keyOf(task.cluster, task.uuid);
        if (known.has(key)) continue;
        const row = { task, isIn: true };
        known.set(key, row);
        order.push(row);
      }
    };

    /** Remove what has left the list, and what is too long. */
    const tidy = (): void => {
      const forget = ({ task }: Row): boolean => known.delete(keyOf(task.cluster, task.uuid));
      order.filter((row) => !row.isIn).forEach(forget);
      order = order.filter((row) => row.isIn);
      if (order.length > wanted + 2 * limit) {
        order.splice(wanted + limit).forEach(forget);
        cursor = ""; // the next page begins elsewhere
      }
      if (order.length < wanted && cursor !== null) plan(Ms.REFILL, false);
    };

    return {
      filters,
      paceMs: Ms.PACE,
      wants: { view: "record" },
      start(given) {
        live = given;
        return () => {
          live = undefined;
          ending.abort();
          cancel();
        };
      },
      begun: () => plan(0),
      gap: () => plan(Ms.REFRESH),
      event(event, record) {
        const { uuid, cluster: broker } = record ?? event;
        if (uuid == null) return false;
        const key = keyOf(broker, uuid);
        const before = touched?.get(key) ?? known.get(key)?.task;
        const task = record ? { children: before?.children ?? [], ...record } : before && outlive(before, event);
        if (!task) return false;
        if (touched) {
          touched.set(key, task);
          shrink(touched, Max.TOUCHED);
        }
        return put(key, task);
      },
      make() {
        if (!isLoaded) return null;
        tidy();
        const more = wanted < Max.ROWS && (cursor !== null || order.length > wanted);
        return { tasks: order.slice(0, wanted).map(({ task }) => task), more, arrived };
      },
      async more() {
        wanted = Math.min(wanted + limit, Max.ROWS);
        try {
          await load(false);
        } catch (error) {
          if ((error as GatewayError).code !== "cursor-expired") throw error;
          await load(true);
        }
      },
    };
  };
}
