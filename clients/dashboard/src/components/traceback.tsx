/** A Python traceback: frames of the application in full, those of packages folded. */
import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { plural, visible } from "../text.ts";
import { firstShown, foldFrames, parseTraceback, type Block, type Fold, type Frame, type Placed } from "../traceback.ts";
import { CopyButton } from "./layout.tsx";
import { LongText, Text } from "./text.tsx";

/** More lines than this are folded: the last ones are shown. */
const MAX_LINES = 200;
/** A longer text is shown as it is, from its end; only that end is split into frames. */
const MAX_CHARS = 200_000;

export function Traceback({ text }: { readonly text: string }) {
  const [isRaw, showRaw] = useState(false);
  const [isWhole, showWhole] = useState(false);
  const end = text.slice(-MAX_CHARS);
  const blocks = useMemo(() => foldFrames(parseTraceback(end)), [end]);
  const first = isWhole ? 0 : firstShown(blocks, MAX_LINES);
  const hidden = first ? blocks[first]!.lines[0] : 0;
  return (
    <section class="traceback" aria-label="Traceback">
      <div class="inline">
        <h2>Traceback</h2>
        <CopyButton text={text} label="Copy the traceback" />
        <button type="button" aria-pressed={isRaw} onClick={() => showRaw(!isRaw)}>As text</button>
      </div>
      {text.length > MAX_CHARS && !isRaw && <p class="muted">The last {MAX_CHARS.toLocaleString("en")} of {text.length.toLocaleString("en")} characters.</p>}
      {isRaw ? <LongText value={text} /> : (
        <ol class="frames mono">
          {hidden > 0 && <li><button type="button" onClick={() => showWhole(true)}>Show {plural(hidden, "line")} before</button></li>}
          {blocks.slice(first).map((block) => <BlockItem key={block.lines[0]} block={block} />)}
        </ol>
      )}
    </section>
  );
}

function BlockItem({ block }: { readonly block: Block | Placed<Fold> }) {
  const isNested = block.depth > 0;
  const style = isNested ? { marginInlineStart: `${Math.min(block.depth, 12) * 14}px` } : undefined;
  const item = (name: string, children: ComponentChildren) => <li class={name} style={style}>{children}</li>;
  switch (block.kind) {
    case "frame":
      return item("frame", <FrameLines frame={block} />);
    case "fold":
      return item("fold", <Folded fold={block} />);
    case "exception":
      return item("raised", <><b><Text value={block.name} max={300} /></b>{block.name && block.message ? ": " : ""}<Lines text={block.message} /></>);
    case "header":
      return null;
    case "member":
      return block.text ? item("muted", <>exception {block.text} of the group</>) : null;
    case "relation":
      return item("muted relation", <Text value={block.text} />);
    default:
      return item("raw", <Lines text={block.text} />);
  }
}

/** A text of some lines; a long one is cut. */
function Lines({ text }: { readonly text: string }) {
  if (text.length > 2_000 || text.split("\n").length > 20) return <LongText value={text} maxLines={20} maxChars={2_000} />;
  return <bdi class="lines">{visible(text)}</bdi>;
}

function FrameLines({ frame }: { readonly frame: Frame }) {
  return (
    <>
      <span class="where">
        <Text value={frame.file} max={200} />:{frame.line}
        {frame.function !== null && <> in <b><Text value={frame.function} max={200} /></b></>}
      </span>
      {frame.code.length > 0 && <pre tabIndex={0}><bdi>{visible(frame.code.join("\n"))}</bdi></pre>}
    </>
  );
}

function Folded({ fold }: { readonly fold: Fold }) {
  const [isOpen, open] = useState(false);
  const [count, setCount] = useState(MAX_LINES);
  return (
    <details open={isOpen} onToggle={(event) => open(event.currentTarget.open)}>
      <summary class="muted">{plural(fold.frames.length, "frame")} of <Text value={fold.packages.join(", ")} max={100} /></summary>
      {isOpen && (
        <ol>
          {fold.frames.slice(0, count).map((frame) => <li key={frame.lines[0]} class="frame"><FrameLines frame={frame} /></li>)}
          {fold.frames.length > count && <li><button type="button" onClick={() => setCount(count + MAX_LINES)}>Show more</button></li>}
        </ol>
      )}
    </details>
  );
}
