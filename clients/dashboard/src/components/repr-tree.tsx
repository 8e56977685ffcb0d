/** Values of Python, such as arguments and results, as trees. */
import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { parseRepr, type Branch, type Item, type Node } from "../repr.ts";
import { CopyButton } from "./layout.tsx";
import { LongText, Text } from "./text.tsx";

/** A value of at most this many characters stands in one line. */
const SHORT = 72;
/** The number of items that are shown at first, and that each click adds. */
const PAGE = 100;

export interface ReprProps {
  /** What Celery sent: Python's `repr`. Any other text is shown as it is. */
  readonly text: string | null;
}

/** A text that is the `repr` of a value; `–` for null. */
export function Repr({ text }: ReprProps) {
  const tree = useMemo(() => (text === null ? null : parseRepr(text)), [text]);
  if (text === null) return <span class="muted">–</span>;
  return (
    <div class="repr mono">
      {tree ? <Value node={tree} isOpen={true} /> : text.length > SHORT || text.includes("\n") ? <LongText value={text} /> : <Text value={text} max={SHORT} />}
      {text.length > 1 && <CopyButton text={text} />}
    </div>
  );
}

function Value({ node, isOpen = false, label }: { readonly node: Node; readonly isOpen?: boolean; readonly label?: Node | undefined }) {
  if (!("items" in node)) return <><Label node={label} /><LeafValue node={node} /></>;
  const isShort = node.text.length <= SHORT && !node.text.includes("\n");
  if (isShort && (!node.items.length || isOpen)) return <><Label node={label} /><Text value={node.text} max={SHORT} /></>;
  return <BranchValue node={node} isOpen={isOpen} label={label} />;
}

function Label({ node }: { readonly node: Node | undefined }) {
  if (!node) return null;
  const isName = node.kind === "str" && /^[\p{L}_][\p{L}\p{N}_-]*$/u.test(node.value ?? "");
  return <><span class="repr-key"><Text value={isName && node.kind === "str" ? node.value : node.text} max={SHORT} /></span>: </>;
}

function LeafValue({ node }: { readonly node: Exclude<Node, Branch> }) {
  const [isShown, show] = useState(false);
  if (node.kind === "cut") return <span class="muted" title="Celery has cut it here">…</span>;
  const isText = node.kind === "str" && (node.text.length > SHORT || /[\n\r]/.test(node.text));
  if (!isText) return <span class={`repr-${node.kind}`}><Text value={node.text} max={2 * SHORT} /></span>;
  return (
    <Details isShown={isShown} onToggle={show} summary={<span class="repr-str"><Text value={node.text} max={SHORT} /></span>}>
      {() => <LongText value={node.text} />}
    </Details>
  );
}

const NUMBER_OF: Readonly<Record<Branch["kind"], string>> = { list: "list", tuple: "tuple", set: "set", dict: "dict", call: "" };

function BranchValue({ node, isOpen, label }: { readonly node: Branch; readonly isOpen: boolean; readonly label: Node | undefined }) {
  const [isShown, show] = useState(isOpen);
  const what = node.kind === "call" ? node.name : `${NUMBER_OF[node.kind]} of ${node.items.length}${node.cut ? " or more" : ""}`;
  const summary = (
    <>
      <Label node={label} />
      <span class="muted"><Text value={what} max={SHORT} /> </span>
      {!isShown && <Text value={node.text} max={SHORT} />}
    </>
  );
  return (
    <Details summary={summary} isShown={isShown} onToggle={show}>
      {() => <Items items={node.items} isNumbered={node.kind === "list" || node.kind === "tuple"} />}
    </Details>
  );
}

function Items({ items, isNumbered }: { readonly items: readonly Item[]; readonly isNumbered: boolean }) {
  const [count, setCount] = useState(PAGE);
  return (
    <ul class="repr-items">
      {items.slice(0, count).map(({ key, value }, at) => (
        <li key={at}>
          {isNumbered && <span class="muted repr-index">{at}</span>}
          <Value node={value} label={key} />
        </li>
      ))}
      {items.length > count && (
        <li><button type="button" onClick={() => setCount(count + PAGE)}>Show {Math.min(PAGE, items.length - count)} more of {items.length}</button></li>
      )}
    </ul>
  );
}

interface DetailsProps {
  readonly summary: ComponentChildren;
  readonly isShown: boolean;
  readonly onToggle: (isShown: boolean) => void;
  readonly children: () => ComponentChildren;
}

/** Contents that are made when they are opened. */
function Details({ summary, isShown, onToggle, children }: DetailsProps) {
  return (
    <details open={isShown} onToggle={(event) => onToggle(event.currentTarget.open)}>
      <summary>{summary}</summary>
      {isShown && children()}
    </details>
  );
}
