/** Feeds of values that change: a task, a workflow, the workers. Their readers are told that, not what. */
import { after, nowMs } from "./environment.js";
import { Feed, type Source } from "./feed.js";
import { checkPattern, type Patterns } from "./filter.js";
import { apply } from "./task.js";
import { workflow } from "./tree.js";
import type { Event, Task, Worker, Workflow } from "./types.js";
import { Roster } from "./roster.js";

const PACE_MS = 50;
/** Making a value takes no more than this part of the time. */
const MAX_SHARE = 1 / 4;

/** A value that is made when it is read. Equal keys, equal values. */
export abstract class ValueFeed<T> extends Feed<void> {
  abstract readonly key: string;
  readonly #paceMs: number;
  #value: T | null = null;
  #isFresh = true;
  #costMs = 0;
  #toldAtMs = -Infinity;
  #isPlanned = false;
  #unplan = (): void => {};

  /** @param paceMs readers are told no sooner after they were told before. */
  constructor(source: Source, paceMs: number) {
    super(source);
    this.#paceMs = paceMs;
  }

  /** As it is now. The same object until it has changed. */
  get value(): T | null {
    if (!this.#isFresh) {
      const startedAtMs = nowMs();
      this.#value = this.make();
      this.#isFresh = true;
      this.#costMs = nowMs() - startedAtMs;
    }
    return this.#value;
  }

  protected abstract make(): T | null;

  protected changed(): void {
    this.#isFresh = false;
    if (this.#isPlanned) return;
    const pauseMs = Math.max(this.#paceMs, this.#costMs / MAX_SHARE);
    const delayMs = this.#toldAtMs + pauseMs - nowMs();
    const tell = (): void => {
      this.#isPlanned = false;
      this.#toldAtMs = nowMs();
      this.tell();
    };
    if (!this.#paceMs || delayMs <= 0) return tell();
    this.#isPlanned = true;
    this.#unplan = after(delayMs, tell);
  }

  protected override begin(): void {
    this.#value = null;
    this.#isFresh = true;
  }

  override end(error?: Error): void {
    this.#unplan();
    this.#isPlanned = false;
    super.end(error);
  }
}

export class TaskFeed extends ValueFeed<Task> {
  readonly key: string;
  readonly filters: readonly Patterns[];
  readonly snapshot: readonly Patterns[];
  readonly #uuid: string;
  #task: Task | undefined;

  constructor(source: Source, uuid: string) {
    super(source, 0);
    checkPattern("uuid", uuid);
    this.#uuid = uuid;
    this.key = `uuid ${uuid}`;
    this.filters = this.snapshot = [{ uuid: [uuid] }];
  }

  event(event: Event): void {
    if (event.uuid !== this.#uuid || !event.type.startsWith("task-")) return;
    this.#task = apply(this.#task, event);
    this.changed();
  }

  refresh(tasks: readonly Task[]): void {
    for (const task of tasks) if (task.uuid === this.#uuid) this.#task = task; // the last word on it
    if (this.#task) this.changed();
  }

  protected override begin(): void {
    super.begin();
    this.#task = undefined;
  }

  protected make(): Task | null {
    return this.#task ?? null;
  }
}

export class WorkflowFeed extends ValueFeed<Workflow> {
  readonly key: string;
  readonly filters: readonly Patterns[];
  readonly snapshot: readonly Patterns[];
  readonly #rootId: string;
  readonly #members = new Map<string, Task>();

  constructor(source: Source, rootId: string) {
    super(source, PACE_MS);
    checkPattern("root_id", rootId);
    this.#rootId = rootId;
    this.key = `root_id ${rootId}`;
    this.filters = this.snapshot = [{ root_id: [rootId] }];
  }

  event(event: Event): void {
    const { uuid } = event;
    if (event.root_id !== this.#rootId || !event.type.startsWith("task-") || typeof uuid !== "string") return;
    this.#members.set(uuid, apply(this.#members.get(uuid), event));
    this.changed();
  }

  refresh(tasks: readonly Task[]): void {
    const ours = tasks.filter((task) => task.root_id === this.#rootId);
    for (const task of ours) this.#members.set(task.uuid, task);
    if (ours.length) this.changed();
  }

  protected override begin(): void {
    super.begin();
    this.#members.clear();
  }

  protected make(): Workflow | null {
    return workflow(this.#rootId, this.#members);
  }
}

export class WorkersFeed extends ValueFeed<readonly Worker[]> {
  readonly key = "workers";
  readonly filters: readonly Patterns[] = [{ type: ["worker-*"] }];
  readonly snapshot: readonly Patterns[] = []; // all workers are told of anyway
  #roster = new Roster();
  #unplan = (): void => {};

  constructor(source: Source) {
    super(source, PACE_MS);
  }

  event(event: Event): void {
    if (this.#roster.hear(event, nowMs())) this.#look(true);
  }

  refresh(_tasks: readonly Task[], workers: readonly Worker[]): void {
    this.#roster.take(workers, nowMs());
    this.#look(true);
  }

  protected override begin(): void {
    super.begin();
    this.#roster = new Roster();
  }

  override end(error?: Error): void {
    this.#unplan();
    super.end(error);
  }

  protected make(): readonly Worker[] {
    return this.#roster.workers();
  }

  /** See who is gone, and look again when the next may be. */
  #look(isChanged: boolean): void {
    this.#unplan();
    const now = nowMs();
    if (this.#roster.miss(now) || isChanged) this.changed();
    const delayMs = this.#roster.nextAtMs() - now;
    if (delayMs < Infinity) this.#unplan = after(delayMs, () => this.#look(false));
  }
}
