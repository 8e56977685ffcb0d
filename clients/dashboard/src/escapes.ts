/** The escapes in Python's strings. Pure. */

const SIMPLE = new Map(Object.entries({ a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v", "\n": "" }));
const ESCAPE = /\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([\s\S]))/g;

/** Replace the escapes of a string (Python's reference, 2.4.1). Unknown ones, and `\\N{…}`, stay. */
export function unescape(body: string, isBytes: boolean): string {
  if (!body.includes("\\")) return body;
  return body.replace(ESCAPE, (all: string, octal?: string, x?: string, u?: string, long?: string, simple?: string) => {
    if (octal !== undefined) return String.fromCharCode(parseInt(octal, 8) & (isBytes ? 0xff : 0x1ff));
    if (x !== undefined) return String.fromCharCode(parseInt(x, 16));
    if (u !== undefined && !isBytes) return String.fromCharCode(parseInt(u, 16));
    if (long !== undefined && !isBytes && parseInt(long, 16) <= 0x10ffff) return String.fromCodePoint(parseInt(long, 16));
    return simple === undefined ? all : (SIMPLE.get(simple) ?? ("\\'\"".includes(simple) ? simple : all));
  });
}
