/**
 * Python's `repr` as a tree. Celery sends `args`, `kwargs` and `result` as such texts, cut at about 1,024 characters
 * (celery/utils/saferepr.py). Nothing is evaluated. One pass with an explicit stack. Pure.
 */
import { unescape } from "./escapes.ts";

/** A value. `text` is its source. */
export type Node = Leaf | Branch;

export interface Leaf {
  /** `constant`: None, True, False, Ellipsis. `opaque`: any other text, such as `<Foo at 0x7f>`. `cut`: `...`. */
  readonly kind: "str" | "bytes" | "number" | "constant" | "opaque" | "cut";
  readonly text: string;
  /** The characters of `str`; of `bytes` one character a byte. */
  readonly value?: string;
  /** Whether the end is missing. */
  readonly cut?: boolean;
}

export interface Branch {
  /** `call`: a type with its arguments, such as `Decimal('1')`. */
  readonly kind: "list" | "tuple" | "set" | "dict" | "call";
  readonly text: string;
  /** Of a call: the name of the type. */
  readonly name?: string;
  readonly items: readonly Item[];
  /** Whether items or the end are missing. */
  readonly cut?: boolean;
}

/** An item; `key` is that of a dict, or the name of a keyword argument. */
export interface Item {
  readonly key?: Node | undefined;
  readonly value: Node;
}

interface Open {
  readonly start: number;
  readonly bracket: string;
  readonly name: string | null;
  readonly items: Item[];
  key: Node | undefined;
  hasComma: boolean;
  hasColon: boolean;
  /** The parts of the current item: more than one is an opaque text. */
  parts: { node: Node; start: number; end: number }[];
}

const MAX_DEPTH = 64;
const CLOSING: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };
const NUMBER =
  /[+-]?(?:inf|nan|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?)(?:[+-](?:inf|nan|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)[jJ]|[jJL])?(?![\w.])/y;
const CUT_NUMBER = /[+-]?\d[\d_]*(?:\.\d*)??(?:[eE][+-]?\d*)?\.\.\./y;
const NAME = /[\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_<][\p{L}\p{N}_>]*)*/uy;
const WORD = /[\p{L}\p{N}_]+/uy;
const QUOTE = /(?:[bB][rR]?|[rR][bB]?|[uU])?(['"])/y;
const CONSTANTS = new Set(["None", "True", "False", "Ellipsis"]);

/**
 * Parse a text.
 *
 * @returns the tree; null if the text is not the `repr` of one value: show it as it is.
 */
export function parseRepr(text: string): Node | null {
  try {
    return new Parser(text).parse();
  } catch (error) {
    if (error instanceof NotRepr) return null;
    throw error;
  }
}

class NotRepr extends Error {}

class Parser {
  private at = 0;
  private readonly stack: Open[] = [open(0, "", null)];
  /** Whether the text may end early. */
  private readonly isCut: boolean;

  private readonly text: string;

  constructor(text: string) {
    this.text = text;
    this.isCut = /(?:\.\.\.|…)$/.test(text);
  }

  parse(): Node | null {
    const { text } = this;
    while (this.at < text.length) this.step(text.charAt(this.at));
    while (this.stack.length > 1) {
      if (!this.isCut) return null;
      this.close(true);
    }
    const [root] = this.stack;
    if (root?.parts.length !== 1 || root.items.length || root.hasComma) return null;
    const node = root.parts[0]!.node;
    return node.kind === "opaque" && !node.text.startsWith("<") ? null : node;
  }

  private get top(): Open {
    return this.stack[this.stack.length - 1]!;
  }

  private step(char: string): void {
    const { top } = this;
    if (char === " " || char === "\n" || char === "\t" || char === "\r") this.at++;
    else if (char === "(" || char === "[" || char === "{") this.open(char);
    else if (char === ")" || char === "]" || char === "}") {
      if (CLOSING[top.bracket] !== char) throw new NotRepr();
      this.at++;
      this.close(false);
    } else if (char === ",") {
      if (!top.parts.length) throw new NotRepr();
      this.endItem();
      top.hasComma = true;
      this.at++;
    } else if (char === ":" && top.bracket === "{" && top.parts.length && !top.key) {
      top.key = this.takeParts();
      top.hasColon = true;
      this.at++;
    } else if (char === "=" && top.name !== null && top.parts.length === 1 && !top.key) {
      top.key = this.takeParts();
      this.at++;
    } else this.atom(char);
  }

  private open(bracket: string): void {
    const last = this.top.parts[this.top.parts.length - 1];
    const isCall = bracket === "(" && last?.node.kind === "opaque" && last.end === this.at && isName(last.node.text);
    if (isCall) this.top.parts.pop();
    if (this.stack.length > MAX_DEPTH) throw new NotRepr();
    this.stack.push(open(isCall ? last.start : this.at, bracket, isCall ? last.node.text : null));
    this.at++;
  }

  private close(isCut: boolean): void {
    const { top } = this;
    if (top.key && !top.parts.length) {
      if (!isCut) throw new NotRepr();
      this.add({ kind: "cut", text: "" }, this.at);
    }
    if (top.parts.length) this.endItem();
    this.stack.pop();
    const { items, start, bracket, name } = top;
    const text = this.text.slice(start, this.at);
    const cut = isCut || items.some(({ key, value }) => !key && value.kind === "cut");
    if (bracket === "(" && name === null && items.length === 1 && !top.hasComma && !cut) {
      const [{ value }] = items as [Item]; // a complex number has parentheses
      this.add("items" in value ? value : { ...value, text }, start);
      return;
    }
    const isDict = bracket === "{" && (top.hasColon || !items.length);
    if (isDict && items.some(({ key, value }) => !key && value.kind !== "cut")) throw new NotRepr();
    const kind = name !== null ? "call" : bracket === "(" ? "tuple" : bracket === "[" ? "list" : isDict ? "dict" : "set";
    this.add({ kind, text, items, ...(name !== null && { name }), ...(cut && { cut }) }, start);
  }

  private atom(char: string): void {
    const { text, at } = this;
    if (text.startsWith("...", at) || char === "…") {
      const end = at + (char === "…" ? 1 : 3);
      this.at = end;
      this.add({ kind: "cut", text: text.slice(at, end) }, at);
    } else if (this.match(QUOTE)) this.string(at);
    else if (this.match(NUMBER)) this.add({ kind: "number", text: text.slice(at, this.at) }, at);
    else if (this.match(CUT_NUMBER)) this.add({ kind: "number", text: text.slice(at, this.at), cut: true }, at);
    else if (this.match(NAME)) {
      const name = text.slice(at, this.at);
      this.add({ kind: CONSTANTS.has(name) ? "constant" : "opaque", text: name }, at);
    } else if (char === "<") this.angle();
    else {
      if (!this.match(WORD)) this.at += text.codePointAt(at)! > 0xffff ? 2 : 1;
      this.add({ kind: "opaque", text: text.slice(at, this.at) }, at);
    }
  }

  private match(pattern: RegExp): boolean {
    pattern.lastIndex = this.at;
    if (!pattern.test(this.text)) return false;
    this.at = pattern.lastIndex;
    return true;
  }

  /** A string, after its opening quote. Celery leaves line breaks in it, and cuts it before the closing quote. */
  private string(start: number): void {
    const { text } = this;
    const quote = text.charAt(this.at - 1);
    const begin = this.at;
    let end = begin;
    for (; end < text.length && text.charAt(end) !== quote; end++) if (text.charAt(end) === "\\") end++;
    const isOpen = end >= text.length;
    if (isOpen && !this.isCut) throw new NotRepr();
    this.at = Math.min(end + 1, text.length);
    const prefix = text.slice(start, begin - 1).toLowerCase();
    const body = text.slice(begin, end);
    const isBytes = prefix.includes("b");
    const value = prefix.includes("r") ? body : unescape(body, isBytes);
    const cut = isOpen || body.endsWith("...");
    this.add({ kind: isBytes ? "bytes" : "str", text: text.slice(start, this.at), value, ...(cut && { cut }) }, start);
  }

  /** `<Foo at 0x7f>`, also nested: up to the `>` that closes it. Celery may cut it. */
  private angle(): void {
    const { text, at } = this;
    let depth = 0;
    let end = at;
    for (; end < text.length; end++) {
      const char = text.charAt(end);
      if (char === "<" && text.charAt(end + 1) !== "=") depth++;
      else if (char === ">" && !"-=".includes(text.charAt(end - 1)) && --depth === 0) break;
    }
    const isClosed = end < text.length;
    if (isClosed) end++;
    else {
      const tail = /\.\.\.(?=(?:, \.\.\.)?[\])}, ]*$)/.exec(text.slice(Math.max(at, text.length - 2 * MAX_DEPTH)));
      if (!tail) throw new NotRepr();
      end = Math.max(at, text.length - 2 * MAX_DEPTH) + tail.index + 3;
    }
    this.at = end;
    this.add({ kind: "opaque", text: text.slice(at, end), ...(!isClosed && { cut: true }) }, at);
  }

  private add(node: Node, start: number): void {
    this.top.parts.push({ node, start, end: this.at });
  }

  private endItem(): void {
    const { top } = this;
    const key = top.key;
    top.items.push(key ? { key, value: this.takeParts() } : { value: this.takeParts() });
    top.key = undefined;
  }

  /** Return the current item, and begin the next one. */
  private takeParts(): Node {
    const { parts } = this.top;
    this.top.parts = [];
    if (parts.length === 1) return parts[0]!.node;
    return { kind: "opaque", text: this.text.slice(parts[0]!.start, parts[parts.length - 1]!.end) };
  }
}

const open = (start: number, bracket: string, name: string | null): Open => ({
  ...{ start, bracket, name, items: [], key: undefined, hasComma: false, hasColon: false, parts: [] },
});
const isName = (text: string): boolean => /^[\p{L}_]/u.test(text);
