/** Values of any JSON type that events have, and tables of limited size. Pure. */

/** Return an id as text, as the gateway does: Celery accepts ids of any JSON type. */
export function idText(id: unknown): string | undefined {
  return typeof id === "string" ? id : JSON.stringify(id ?? undefined);
}

/** Return what identifies a task or a worker: several brokers may have the same uuid or hostname. */
export function keyOf(cluster: unknown, id: unknown): string {
  return `${idText(cluster) ?? ""},${idText(id) ?? ""}`;
}

/** Return a number, and undefined for anything else: an application's event may have any value in any field. */
export function number(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

/** If a map has too many entries, delete the first ones, a tenth of all: one by one would take quadratic time. */
export function shrink<V>(map: Map<string, V>, max: number, isKept: (value: V) => boolean = () => false): boolean {
  if (map.size <= max) return false;
  for (const [key, value] of map) {
    if (map.size <= 0.9 * max) break;
    if (!isKept(value)) map.delete(key);
  }
  return true;
}

export function words(list: string): string[] {
  return list.split(" ");
}

/** Return an object whose fields are null. */
export function blank(list: string): { [field: string]: null } {
  return Object.fromEntries(words(list).map((field) => [field, null]));
}

/** Return the seconds of an age such as `10m`; undefined for another text. */
export function seconds(age: string): number | undefined {
  const [, amount, unit] = /^([\d.]+)(ms|[smhd])$/.exec(age) ?? [];
  return unit === undefined ? unit : +amount! * { ms: 0.001, s: 1, m: 60, h: 3_600, d: 86_400 }[unit as "s"];
}
