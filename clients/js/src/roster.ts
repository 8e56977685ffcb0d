/** The workers and which of them are gone, as the gateway tells them apart: see `Worker.alive`. Pure. */
import { number } from "./task.js";
import type { Event, Worker } from "./types.js";

const [SILENT_MS, SILENT_FREQS, MAX_FREQ_SECONDS] = [15_000, 3, 3_600];
const NUMBERS = ["active", "processed", "pid", "clock"];
const TEXTS = ["sw_ident", "sw_ver", "sw_sys"];

/** The table of workers; `nowMs` is any clock that only goes forward. */
export class Roster {
  readonly #known = new Map<string, { worker: Worker; silentAtMs: number }>();

  /** Take over what the gateway knows. */
  take(workers: readonly Worker[], nowMs: number): void {
    for (const worker of workers) this.#put(worker, nowMs);
  }

  /** Take a worker's event in; tell whether it says anything new. */
  hear(event: Event, nowMs: number): boolean {
    const { type, hostname, cluster } = event as Event & { cluster?: string };
    if (!type.startsWith("worker-") || !hostname || /^gen\d+@/.test(hostname)) return false;
    const known = this.#known.get(key({ hostname, cluster }))?.worker ?? blank(hostname, cluster);
    const timestamp = number(event.timestamp) ?? known.timestamp;
    const pid = number(event["pid"]);
    const isOffline = type === "worker-offline";
    // Two processes may go by one name: what an earlier one says late is of no matter.
    if ((known.timestamp ?? 0) > (timestamp ?? 0)) return false;
    if (isOffline && known.alive && known.pid !== null && pid !== known.pid) return false;
    const worker: { [field: string]: unknown } = { ...known, alive: !isOffline, timestamp };
    if (pid !== known.pid) worker["active"] = worker["processed"] = worker["loadavg"] = null;
    for (const field of NUMBERS) worker[field] = number(event[field]) ?? worker[field];
    for (const field of TEXTS) if (typeof event[field] === "string") worker[field] = event[field];
    // An answer to the command `heartbeat` has a freq that is not the worker's (celery/worker/control.py).
    if ("active" in event || known.freq === null) worker["freq"] = number(event["freq"]) || known.freq;
    if (Array.isArray(event["loadavg"])) worker["loadavg"] = event["loadavg"].slice(0, 3);
    if (isOffline) worker["offline"] = timestamp;
    if (type === "worker-online") worker["online"] = timestamp;
    this.#put(worker as unknown as Worker, nowMs);
    return true;
  }

  /** Find those who have been silent for too long; tell whether there are any. */
  miss(nowMs: number): boolean {
    const gone = [...this.#known.values()].filter(({ silentAtMs }) => silentAtMs <= nowMs);
    for (const { worker } of gone) this.#put({ ...worker, alive: false }, nowMs);
    return gone.length > 0;
  }

  /** When the next one will have been silent for too long. */
  nextAtMs(): number {
    let next = Infinity;
    for (const { silentAtMs } of this.#known.values()) next = Math.min(next, silentAtMs);
    return next;
  }

  /** By cluster and hostname. */
  workers(): Worker[] {
    return [...this.#known.keys()].sort().map((name) => (this.#known.get(name) as { worker: Worker }).worker);
  }

  #put(worker: Worker, nowMs: number): void {
    const silentMs = Math.max(SILENT_MS, SILENT_FREQS * 1_000 * Math.min(worker.freq ?? 0, MAX_FREQ_SECONDS));
    this.#known.set(key(worker), { worker, silentAtMs: worker.alive ? nowMs + silentMs : Infinity });
  }
}

function key({ hostname, cluster }: { hostname: string; cluster?: string | undefined }): string {
  return `${cluster ?? ""}\n${hostname}`;
}

function blank(hostname: string, cluster: string | undefined): Worker {
  const nothing = "freq active processed loadavg pid clock timestamp online offline sw_ident sw_ver sw_sys";
  return {
    hostname,
    alive: true,
    ...Object.fromEntries(nothing.split(" ").map((field) => [field, null])),
    ...(cluster !== undefined && { cluster }),
  } as unknown as Worker;
}
