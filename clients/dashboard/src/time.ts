/** Times and durations as texts. Pure; times are epoch seconds, durations are seconds. */

const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");

/** Return a duration with two or three significant digits: `<1 ms`, `20 ms`, `1.85 s`, `4 min 12 s`, `3 h 05 min`, `2 d 4 h`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  const sign = seconds < 0 ? "−" : "";
  const all = Math.abs(seconds);
  if (!all) return "0 s";
  if (all < 0.001) return "<1 ms";
  if (all < 0.9995) return `${sign}${Math.round(all * 1_000)} ms`;
  if (all < 9.995) return `${sign}${all.toFixed(2).replace(/\.?0+$/, "")} s`;
  if (all < 59.95) return `${sign}${all.toFixed(1).replace(/\.0$/, "")} s`;
  const whole = all < 600 ? Math.round(all) : 60 * Math.round(all / 60);
  const [days, hours, minutes] = [Math.floor(whole / 86_400), Math.floor(whole / 3_600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${sign}${days} d ${hours} h`;
  if (hours) return `${sign}${hours} h ${pad(minutes)} min`;
  return whole % 60 ? `${sign}${minutes} min ${whole % 60} s` : `${sign}${minutes} min`;
}

/** Return how long ago a time is: `now`, `12 s ago`, `4 min ago`; `in 12 s` for a later one. */
export function ago(time: number, now: number): string {
  const seconds = now - time;
  if (Math.abs(seconds) < 1) return "now";
  const rough = (all: number): string => {
    if (all < 60) return `${Math.floor(all)} s`;
    if (all < 3_600) return `${Math.floor(all / 60)} min`;
    if (all < 86_400) return `${Math.floor(all / 3_600)} h`;
    return `${Math.floor(all / 86_400)} d`;
  };
  return seconds < 0 ? `in ${rough(-seconds)}` : `${rough(seconds)} ago`;
}

/** Clocks that differ by less, in seconds, agree: a message takes some time. */
const AGREE = 2;

/**
 * Return the gateway's clock minus that of the browser, in seconds; 0 if they agree.
 *
 * @param before the difference so far: it stays if it is still about right.
 */
export function skewOf(before: number, gateway: number, browser: number): number {
  const skew = gateway - browser;
  if (Math.abs(skew) < AGREE) return 0;
  return Math.abs(skew - before) < AGREE ? before : skew;
}

interface Parts {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
  readonly ms: number;
}

function partsOf(time: number, isUtc: boolean): Parts {
  const date = new Date(time * 1_000);
  return isUtc
    ? { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate(), hour: date.getUTCHours(),
        minute: date.getUTCMinutes(), second: date.getUTCSeconds(), ms: date.getUTCMilliseconds() }
    : { year: date.getFullYear(), month: date.getMonth() + 1, day: date.getDate(), hour: date.getHours(),
        minute: date.getMinutes(), second: date.getSeconds(), ms: date.getMilliseconds() };
}

/** Return the time of day, `13:21:27`; with `digits` of 3 also milliseconds. */
export function clock(time: number, isUtc: boolean, digits = 0): string {
  if (!isTime(time)) return "–";
  const { hour, minute, second, ms } = partsOf(time, isUtc);
  return `${pad(hour)}:${pad(minute)}:${pad(second)}${digits ? `.${pad(ms, 3).slice(0, digits)}` : ""}`;
}

/** Return the date and the time: `2026-11-28 13:21:27.180 UTC`, or without `UTC` for local time. */
export function dateTime(time: number, isUtc: boolean): string {
  if (!isTime(time)) return "–";
  const { year, month, day } = partsOf(time, isUtc);
  return `${year}-${pad(month)}-${pad(day)} ${clock(time, isUtc, 3)}${isUtc ? " UTC" : ""}`;
}

/** Return the time of day of today, and the date with the time of day otherwise. */
export function shortTime(time: number, now: number, isUtc: boolean): string {
  if (!isTime(time)) return "–";
  const [date, today] = [dateTime(time, isUtc).slice(0, 10), dateTime(now, isUtc).slice(0, 10)];
  return date === today ? clock(time, isUtc) : `${date} ${clock(time, isUtc).slice(0, 5)}`;
}

/** Return a time as RFC 3339 in UTC; an empty text if a browser cannot represent it. */
export function rfc3339(time: number): string {
  return isTime(time) ? new Date(time * 1_000).toISOString() : "";
}

function isTime(time: number): boolean {
  return Number.isFinite(time) && Math.abs(time) <= 8.64e12;
}
