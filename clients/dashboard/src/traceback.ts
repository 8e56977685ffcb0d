/** A Python traceback in parts: frames, exceptions, and how they belong together. Pure; linear in the text. */

export interface Frame {
  readonly kind: "frame";
  readonly file: string;
  readonly line: number;
  /** `null` where a syntax error is. */
  readonly function: string | null;
  /** The package, if it is not the application's own code: `celery`, `kombu`, `python`, … */
  readonly package: string | null;
  /** The source line, and the markers below it, without their indentation. */
  readonly code: readonly string[];
}

export interface Raised {
  readonly kind: "exception";
  /** Such as `shop.PaymentTimeout`; empty if the text has none. */
  readonly name: string;
  /** Also of many lines; notes are its last lines. */
  readonly message: string;
}

export interface Fold {
  readonly kind: "fold";
  readonly packages: readonly string[];
  readonly frames: readonly Placed<Frame>[];
}

/** `relation`: how two exceptions belong together. `member`: the number of an exception in its group. */
export interface Note {
  readonly kind: "header" | "relation" | "member" | "text";
  readonly text: string;
}

/** `depth`: how many exception groups it is in. `lines`: the numbers of its first line, and of the one after its last. */
export type Placed<T> = T & { readonly depth: number; readonly lines: readonly [from: number, to: number] };
export type Block = Placed<Frame> | Placed<Raised> | Placed<Note>;

const HEADER = /^(?:Exception Group )?Traceback \(most recent call last\):$/;
const GROUP = /^( *)[+|] Exception Group Traceback \(most recent call last\):$/;
const GUTTER = /^( *)(?:\| ?|\+ (?=Exception Group)|(?=\+-))/;
const MEMBER = /^\+-\+?-+(?: (\d+|\.\.\.) )?-*$/;
const FRAME = /^ {2}File "(.*)", line (\d+)(?:, in (.*))?$/;
const RELATIONS = new Set([
  "During handling of the above exception, another exception occurred:",
  "The above exception was the direct cause of the following exception:",
]);
const RAISED = /^([\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_<][\p{L}\p{N}_>]*)*)(?:: ?([^]*))?$/u;
const INSTALLED = /(?:[\\/](?:site|dist)-packages|\.whl)[\\/]([^\\/]+)/;
const CELERY = /(?:^|[\\/])(?:(celery)[\\/](?:(?:app|worker|utils|backends|concurrency|events|bin|loaders|contrib)[\\/]|(?:canvas|result|local|_state|schedules|beat)\.py)|(kombu|billiard|vine|amqp)[\\/])/;
const PYTHON = /^<frozen |[\\/]lib(?:64)?[\\/]py(?:thon|py)\d[\dA-Za-z.]*[\\/]|[\\/]python\d+\.zip[\\/]|(?:[Pp]ython|conda|forge|versions\\\d|envs\\)[^\\/]{0,80}\\[Ll]ib\\/;

/** Return the package of a file; null for the application's own code. The gateway groups failures by the same rule. */
export function packageOf(file: string): string | null {
  const installed = INSTALLED.exec(file)?.[1];
  if (installed) return installed.replace(/\.py$/, "");
  const [, celery, other] = CELERY.exec(file) ?? [];
  return celery ?? other ?? (PYTHON.test(file) ? "python" : null);
}

interface Growing {
  kind: "frame" | "raised" | Note["kind"];
  depth: number;
  from: number;
  to: number;
  lines: string[];
  match?: RegExpExecArray;
}

/** Return the parts of a traceback, in order. Each line of the text is in one of them. */
export function parseTraceback(text: string): Block[] {
  const parts: Growing[] = [];
  let isGroup = false;
  let current: Growing | undefined;
  const lines = text.replace(/\n+$/, "").split("\n");
  lines.forEach((whole, at) => {
    if (GROUP.test(whole)) isGroup = true;
    const gutter = isGroup ? GUTTER.exec(whole) : null;
    if (isGroup && !gutter && whole.trim()) isGroup = false;
    const depth = gutter ? gutter[1]!.length / 2 + Number(whole.startsWith("+-+", gutter[1]!.length)) : 0;
    const line = gutter ? whole.slice(gutter[0].length) : whole;
    const begin = (kind: Growing["kind"], match?: RegExpExecArray | null): void => {
      current = { kind, depth, from: at, to: at + 1, lines: [line], ...(match && { match }) };
      parts.push(current);
    };
    const frame = FRAME.exec(line);
    const member = gutter && MEMBER.exec(line);
    if (HEADER.test(line)) begin("header");
    else if (member) begin("member", member);
    else if (RELATIONS.has(line)) begin("relation");
    else if (frame && current?.kind !== "raised") begin("frame", frame);
    else if (current?.kind === "frame" && (!line || /^ {2}(?: {2}|\[Previous line)/.test(line))) grow(current, line, at);
    else if (current?.kind === "relation" && !line) grow(current, line, at);
    else if (current && ["frame", "header", "member"].includes(current.kind)) begin(line ? "raised" : "text");
    else if (current && current.kind !== "relation") grow(current, line, at);
    else begin("text");
  });
  return parts.map(finished);
}

function grow(part: Growing, line: string, at: number): void {
  part.lines.push(line);
  part.to = at + 1;
}

function finished({ kind, depth, from, to, lines, match }: Growing): Block {
  const place = { depth, lines: [from, to] as const };
  const text = lines.join("\n");
  if (kind === "frame" && match) {
    const file = match[1]!;
    const code = lines.slice(1).map((line) => line.replace(/^ {2,4}/, ""));
    while (code.length && !code[code.length - 1]) code.pop();
    return { kind, file, line: Number(match[2]), function: match[3] ?? null, package: packageOf(file), code, ...place };
  }
  if (kind === "raised") {
    const trimmed = text.replace(/\n+$/, "");
    const [, name, message = ""] = RAISED.exec(trimmed) ?? [];
    return { kind: "exception", ...(name === undefined ? { name: "", message: trimmed } : { name, message }), ...place };
  }
  return { kind: kind as Note["kind"], text: kind === "member" ? (match?.[1] ?? "") : text.replace(/\n+$/, ""), ...place };
}

/** Join neighbouring frames that are not of the application, except the last frame of a traceback that has no other. */
export function foldFrames(blocks: readonly Block[]): (Block | Placed<Fold>)[] {
  const folded: (Block | Placed<Fold>)[] = [];
  for (let at = 0; at < blocks.length; ) {
    let end = at;
    while (blocks[end]?.kind === "frame") end++;
    if (end === at) folded.push(blocks[at++]!);
    else {
      const frames = blocks.slice(at, end) as Placed<Frame>[];
      const hasOwn = frames.some((frame) => frame.package === null);
      folded.push(...joined(hasOwn ? frames : frames.slice(0, -1)), ...(hasOwn ? [] : frames.slice(-1)));
      at = end;
    }
  }
  return folded;
}

function joined(frames: readonly Placed<Frame>[]): (Placed<Frame> | Placed<Fold>)[] {
  const result: (Placed<Frame> | Placed<Fold>)[] = [];
  let run: Placed<Frame>[] = [];
  const end = (): void => {
    const [first, last] = [run[0], run[run.length - 1]];
    if (!first || !last) return;
    const packages = [...new Set(run.map((frame) => frame.package!))];
    result.push({ kind: "fold", packages, frames: run, depth: first.depth, lines: [first.lines[0], last.lines[1]] });
    run = [];
  };
  for (const frame of frames) {
    if (frame.package !== null) run.push(frame);
    else {
      end();
      result.push(frame);
    }
  }
  end();
  return result;
}

/** Return the index of the first block to show, so that at most `maxLines` lines of the end are shown; the last block always. */
export function firstShown(blocks: readonly { readonly lines: readonly [number, number] }[], maxLines: number): number {
  let first = blocks.length - 1;
  const end = blocks[first]?.lines[1] ?? 0;
  while (first > 0 && end - blocks[first - 1]!.lines[0] <= maxLines) first--;
  return Math.max(0, first);
}
