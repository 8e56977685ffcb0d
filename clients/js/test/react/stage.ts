/**
 * A part of a page that React renders inside <StrictMode>, with what that costs: requests, commits, and what
 * React says on the console. One for each test.
 */
import { createElement, type FunctionComponent, type ReactNode, StrictMode, useEffect } from "react";
import { flushSync } from "react-dom";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import type { Client } from "../../dist/index.js";
import { GatewayProvider } from "../../dist/react.js";
import type { Test } from "../live/list.js";
import type { Door, Trial } from "../live/trial.js";

/** What a stream was asked for. */
export interface StreamRequest {
  readonly any?: readonly Record<string, readonly string[]>[];
  readonly snapshot?: readonly Record<string, readonly string[]>[];
  readonly last_event_id?: string;
}

export class Stage {
  /** Of the client, in order. */
  readonly requests: StreamRequest[] = [];
  /** What was said on the console; a test in which that is right empties it. */
  readonly complaints: string[] = [];
  readonly client: Client;
  readonly container = document.body.appendChild(document.createElement("div"));
  #root: Root | undefined;

  constructor(
    readonly t: Trial,
    readonly door: Door,
  ) {
    this.client = this.connect();
  }

  connect(): Client {
    const counting: typeof fetch = (input, init) => {
      this.requests.push(JSON.parse(String(init?.body)));
      return fetch(input, init);
    };
    return this.t.connect({ url: this.door.url, transport: "sse", fetch: counting });
  }

  get text(): string {
    return this.container.textContent ?? "";
  }

  /** When it returns, the page shows it. */
  render(node: ReactNode, client = this.client): void {
    const root = (this.#root ??= createRoot(this.container));
    flushSync(() => root.render(framed(client, node)));
  }

  /** Takes over a page that was rendered on a server. */
  hydrate(node: ReactNode): void {
    this.#root = hydrateRoot(this.container, framed(this.client, node), {
      onRecoverableError: (error) => this.complaints.push(`mended: ${error}`),
    });
  }

  unmount(): void {
    this.#root?.unmount();
    this.#root = undefined;
  }

  async shows(text: string): Promise<void> {
    await this.t
      .until(`"${text}" is shown`, () => this.text === text)
      .catch((error: Error) => {
        throw new Error(`${error.message}; "${this.text}" is`);
      });
  }

  async open(client = this.client): Promise<void> {
    await this.t.open(client);
  }
}

export function framed(client: Client, node: ReactNode): ReactNode {
  return createElement(StrictMode, null, createElement(GatewayProvider, { client }, node));
}

/** A test on a stage. It fails, too, if anything is left said on the console. */
export function staged(name: string, run: (t: Trial, stage: Stage) => Promise<void>, isAlone = false): Test {
  return {
    name,
    isAlone,
    async run(t) {
      // Behind a guard each connection carries one request, so that those that are open can be counted.
      const stage = new Stage(t, await t.door({ pages: true }));
      const { error, warn } = console;
      console.error = console.warn = (...what: unknown[]) =>
        stage.complaints.push(what.map(String).join(" "));
      try {
        await run(t, stage);
      } finally {
        stage.unmount();
        stage.container.remove();
        Object.assign(console, { error, warn });
      }
      t.equal(stage.complaints, [], "what was said on the console");
    },
  };
}

/** A component that shows what a hook gives; with each of its renders, and how often they reached the page. */
export interface Probe<Props, Value> {
  readonly Component: FunctionComponent<Props>;
  readonly renders: { readonly props: Props; readonly value: Value; readonly atMs: number }[];
  /** In StrictMode the first counts twice. */
  commits: number;
}

export function probe<Props extends object, Value>(
  use: (props: Props) => Value,
  show: (value: Value) => unknown,
): Probe<Props, Value> {
  const made: Probe<Props, Value> = {
    renders: [],
    commits: 0,
    Component: (props) => {
      const value = use(props);
      made.renders.push({ props, value, atMs: performance.now() });
      useEffect(() => {
        made.commits += 1;
      });
      return createElement("span", null, String(show(value)));
    },
  };
  return made;
}
