/** Where two values differ, as JSON says them: `undefined` is left out, the order of fields is no matter. */
export function differences(ours: unknown, theirs: unknown, path = "", found: string[] = []): string[] {
  if (found.length >= 10 || Object.is(ours, theirs)) return found;
  if (isObject(ours) && isObject(theirs) && Array.isArray(ours) === Array.isArray(theirs)) {
    for (const key of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
      differences(ours[key], theirs[key], path ? `${path}.${key}` : key, found);
    }
    return found;
  }
  found.push(`  ${path || "(all)"}: ${text(ours)} is not ${text(theirs)}`);
  return found;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string {
  return (JSON.stringify(value) ?? "(nothing)").slice(0, 200);
}
