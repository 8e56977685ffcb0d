/** The search bar, with completions of what the gateway knows. `/` and Ctrl-K go to it. */
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Counts } from "../../../js/src/index.ts";
import { useFetched } from "../gateway.ts";
import { focusMain } from "./layout.tsx";
import { useKeys } from "../keys.ts";
import { literal, type Query } from "../route.ts";
import { type Completion, completions, parseSearch, TASK_FIELDS } from "../search.ts";
import { count, visible } from "../text.ts";

export interface SearchBoxProps {
  readonly label: string;
  readonly placeholder: string;
  /** The text of what is shown now. */
  readonly value: string;
  readonly fields?: readonly string[];
  /** Is called on Enter, if there is no error. */
  readonly onSearch: (query: Query, text: string) => void;
  /** Whether the keys of the search go to this bar. */
  readonly hasKeys?: boolean;
}

export function SearchBox({ label, placeholder, value, fields = TASK_FIELDS, onSearch, hasKeys }: SearchBoxProps) {
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(value);
  const [isOpen, setOpen] = useState(false);
  const [chosen, choose] = useState(-1);
  const [errors, setErrors] = useState<readonly string[]>([]);
  const id = useId();
  useEffect(() => {
    setText(value);
    setErrors([]);
  }, [value]);
  const { value: known } = useFetched<Counts>(isOpen ? "/tasks/counts" : null, { by: "state,name,queue,hostname" });
  const offered = isOpen ? completions(text, known?.counts ?? {}, literal, fields) : [];
  useKeys(
    hasKeys
      ? {
          search: () => {
            input.current?.focus();
            input.current?.select();
          },
        }
      : {},
  );

  const change = (next: string): void => {
    setText(next);
    setErrors([]);
    choose(-1);
    setOpen(true);
  };
  const take = ({ text: next }: Completion): void => {
    change(next);
    input.current?.focus();
  };
  const submit = (): void => {
    const { query, errors } = parseSearch(text, fields);
    setErrors(errors);
    if (errors.length) return;
    setOpen(false);
    onSearch(query, text);
    focusMain(); // the keys of lists are off in fields
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      setOpen(true);
      choose(Math.max(-1, Math.min(offered.length - 1, chosen + step)));
    } else if (event.key === "Enter" || event.key === "Tab") {
      const completion = offered[chosen];
      if (completion) take(completion);
      else if (event.key === "Enter") submit();
      if (event.key === "Tab" && !completion) return;
    } else if (event.key === "Escape" && isOpen) setOpen(false);
    else if (event.key === "Escape") input.current?.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <form class="search" role="search" aria-label={label} onSubmit={(event) => (event.preventDefault(), submit())}>
      <input ref={input} type="text" enterkeyhint="search" role="combobox" aria-label={label} placeholder={placeholder} value={text} autocomplete="off" autocapitalize="off" spellcheck={false}
        aria-expanded={offered.length > 0} aria-controls={`${id}list`} aria-autocomplete="list" aria-activedescendant={offered[chosen] ? `${id}${chosen}` : undefined}
        aria-invalid={errors.length > 0} aria-describedby={errors.length ? `${id}error` : undefined}
        onInput={(event) => change(event.currentTarget.value)} onKeyDown={onKeyDown} onFocus={() => setOpen(true)} onBlur={() => setTimeout(() => setOpen(false), 150)} />
      {errors.length > 0 && <p class="search-error" id={`${id}error`} role="alert">{visible(errors.join("; "))}</p>}
      <ul class="completions" role="listbox" id={`${id}list`} aria-label="Completions" hidden={!offered.length || errors.length > 0}>
        {offered.map((completion, index) => (
          <li key={completion.text} id={`${id}${index}`} role="option" aria-selected={index === chosen} onPointerDown={(event) => (event.preventDefault(), take(completion))}>
            <bdi class="cut">{visible(completion.label)}</bdi>
            {completion.count !== null && <span class="muted num">{count(completion.count)}</span>}
          </li>
        ))}
      </ul>
    </form>
  );
}
