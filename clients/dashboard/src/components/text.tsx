/** Texts of events. They are untrusted: they enter the page as text nodes only. */
import { useState } from "preact/hooks";
import { asText, cut, visible } from "../text.ts";

export interface TextProps {
  readonly value: unknown;
  /** Characters that are shown; the title has up to 1,000. */
  readonly max?: number;
  readonly class?: string;
}

/** One line of text, isolated from its surroundings and with visible escapes. */
export function Text({ value, max = 200, class: className }: TextProps) {
  const whole = asText(value);
  const shown = visible(cut(whole, max));
  return (
    <bdi class={className} title={whole.length > max ? visible(cut(whole, 1_000)) : undefined}>
      {shown}
    </bdi>
  );
}

export interface LongTextProps {
  readonly value: unknown;
  /** Lines and characters that are shown before `Show all`. */
  readonly maxLines?: number;
  readonly maxChars?: number;
}

/** A text of many lines in fixed width. A long one is cut, with a button that shows all. */
export function LongText({ value, maxLines = 200, maxChars = 20_000 }: LongTextProps) {
  const [isWhole, showWhole] = useState(false);
  const whole = asText(value);
  const lines = whole.slice(0, maxChars).split("\n");
  const isLong = whole.length > maxChars || lines.length > maxLines;
  const shown = isWhole || !isLong ? whole : lines.slice(0, maxLines).join("\n");
  return (
    <>
      <pre class="long-text" tabIndex={0}><bdi>{visible(shown)}</bdi></pre>
      {isLong && (
        <button type="button" onClick={() => showWhole(!isWhole)}>
          {isWhole ? "Show less" : `Show all ${whole.length.toLocaleString("en")} characters`}
        </button>
      )}
    </>
  );
}
