/** The hooks in a page, over a real gateway. `stage.text` is what the user sees. */
import * as React from "react";
import { Component, createElement as h, Fragment, type ReactNode, useState } from "react";
import { renderToString } from "react-dom/server";
import type { Event, Gap } from "../../dist/index.js";
import { useEvents, useGateway, useStatus, useTask, useWatch, useWorkers, useWorkflow } from "../../dist/react.js";
import type { Test } from "../live/list.js";
import { numbers, pause, type Trial, unique } from "../live/trial.js";
import { framed, probe, type Stage, staged } from "./stage.js";

const LINGER_MS = 1_000;
const PACE_MS = 50;
/** React 19.2 and later: what is hidden keeps its state and loses its effects. */
const Activity = (React as any).Activity as React.FunctionComponent<any> | undefined;

const taskState = () =>
  probe(
    ({ uuid }: { uuid: string | null }) => useTask(uuid),
    (task) => task?.state ?? "nothing",
  );

const listOf = (use: () => readonly Event[]) =>
  probe(use, (events) => events.map((event) => event["n"]).join());

/** Publishes events of a task as its worker would send them. */
function tell(t: Trial, uuid: string, ...types: string[]): Promise<unknown> {
  const common = { uuid, hostname: "w1@host", utcoffset: 0, pid: 1, clock: 1 };
  const bodies = types.map((type) => ({ ...common, type, timestamp: Date.now() / 1_000 }));
  return t.command("/publish", { bodies });
}

/** The connections that are open when the page has come to rest. */
async function connections(stage: Stage, expected: number): Promise<void> {
  await stage.t.until(
    `${expected} connections are open`,
    async () => (await stage.door.state()).open === expected,
  );
}

export const hooks: Test[] = [
  staged("useTask shows a task from RECEIVED to SUCCESS as it goes on", async (t, stage) => {
    const uuid = crypto.randomUUID();
    const { Component, renders } = taskState();
    stage.render(h(Component, { uuid }));
    await stage.open();
    t.equal(stage.text, "nothing", "before anything is known");
    for (const [type, state] of [
      ["task-received", "RECEIVED"],
      ["task-started", "STARTED"],
      ["task-progress", "PROGRESS"],
      ["task-succeeded", "SUCCESS"],
    ] as const) {
      await tell(t, uuid, type);
      await stage.shows(state);
    }
    t.ok(renders.at(-1)!.value!.succeeded! > renders.at(-1)!.value!.received!, "its times are there");
    t.equal(stage.requests.length, 1, "requests");
  }),

  staged("useTask shows a task that has ended before", async (t, stage) => {
    const { uuid } = await t.run("canvas.add", 40, 2);
    await t.connect({ url: stage.door.url }).task(uuid).ready;
    const { Component, renders } = taskState();
    stage.render(h(Component, { uuid }));
    await stage.shows("SUCCESS");
    t.equal(renders.at(-1)!.value!.result, "42", "its result");
  }),

  staged("useWatch tells loading, unknown and an error apart, and needs no memo", async (t, stage) => {
    const uuid = crypto.randomUUID();
    const { root_id, uuid: child } = await t.run("chain", 1, 2);
    const known: string[] = [];
    const Watch = ({ uuid, rootId }: { uuid: string | null; rootId: string }) => {
      const client = useGateway();
      const task = useWatch(uuid === null ? null : client.task(uuid));
      const flow = useWatch(client.workflow(rootId));
      known.push(task.status);
      return h("p", null, `${task.status} ${task.value?.state} ${flow.status} ${(flow.error as any)?.code} ${flow.value?.total}`);
    };
    stage.render(h(Watch, { uuid, rootId: child }));
    t.equal(stage.text, "loading undefined loading undefined undefined", "before the answer");
    await stage.shows("unknown undefined error not-a-root undefined");
    await tell(t, uuid, "task-received");
    await stage.shows("known RECEIVED error not-a-root undefined");
    t.equal([...new Set(known)], ["loading", "unknown", "known"], "what the task was, in order");
    const before = stage.requests.length;
    for (let times = 0; times < 5; times += 1) {
      stage.render(h(Watch, { uuid, rootId: child }));
      await pause(20);
    }
    t.equal([stage.requests.length, stage.text.slice(0, 14)], [before, "known RECEIVED"], "after more renders");
    stage.render(h(Watch, { uuid: null, rootId: root_id }));
    await stage.shows("loading undefined known undefined 3");
    stage.render(h(Watch, { uuid, rootId: root_id }));
    stage.client.close();
    await stage.shows("known RECEIVED known undefined 3");
  }),

  staged("a client that is refused: useWatch has the error, and keeps the last value", async (t, stage) => {
    const { uuid } = await t.run("canvas.add", 40, 2);
    const guarded = await t.door({ tokens: ["new"] });
    const client = t.connect({ url: guarded.url, token: "old", transport: "sse" });
    const Watch = () => {
      const { value, status, error } = useWatch(useGateway().task(uuid));
      return h("p", null, `${value?.state} ${status} ${(error as any)?.status}`);
    };
    stage.render(h(Watch), client);
    await stage.shows("undefined error 401");
    await guarded.answer({ tokens: ["old"] });
    const other = t.connect({ url: guarded.url, token: "old", transport: "sse" });
    stage.render(h(Watch), other);
    await stage.shows("SUCCESS known undefined");
    await guarded.answer({ tokens: ["new"] });
    await guarded.cut();
    await stage.shows("SUCCESS error 401");
  }),

  staged("another uuid never shows the task before", async (t, stage) => {
    const [a, b, c] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()];
    const { Component, renders } = taskState();
    const other = taskState();
    const show = (uuid: string | null) =>
      stage.render(h(Fragment, null, h(Component, { uuid }), " ", h(other.Component, { uuid: c })));
    show(a);
    await stage.open();
    await tell(t, a, "task-received", "task-started");
    await tell(t, c, "task-received");
    await stage.shows("STARTED RECEIVED");
    show(b);
    t.equal(stage.text, "nothing RECEIVED", "at once");
    await tell(t, a, "task-succeeded");
    await tell(t, b, "task-received");
    await stage.shows("RECEIVED RECEIVED");
    show(c);
    t.ok(renders.find(({ props }) => props.uuid === c)!.value, "what another watch knows is there at once");
    show(null);
    t.equal(stage.text, "nothing RECEIVED", "at once");
    show(a);
    await stage.shows("SUCCESS RECEIVED");
    for (const { props, value } of renders)
      t.ok(!value || value.uuid === props.uuid, `${props.uuid} shows itself`);
    t.ok(
      stage.requests.every((request) => stage.requests[0] === request || request.last_event_id),
      "all go on",
    );
  }),

  staged("StrictMode's double mount makes one connection and one request", async (t, stage) => {
    const uuid = crypto.randomUUID();
    const { Component } = taskState();
    stage.render(h(Fragment, null, h(Component, { uuid }), h(Component, { uuid })));
    await stage.open();
    await tell(t, uuid, "task-received");
    await stage.shows("RECEIVEDRECEIVED");
    await pause(2 * LINGER_MS);
    t.equal(stage.requests, [{ any: [{ uuid: [uuid] }], view: "record", snapshot: [{ uuid: [uuid] }] }], "requests");
    await connections(stage, 1);
  }),

  staged("a remount within the linger costs nothing", async (t, stage) => {
    const { uuid } = await t.run("canvas.add", 40, 2);
    const State = () =>
      h("p", null, useTask(uuid)?.state, " ", useWorkflow(uuid)?.progress, " ", useWorkers()?.length);
    stage.render(h(State));
    await t.until("all is known", () => /^SUCCESS 1 [1-9]/.test(stage.text));
    const asked = stage.requests.length;
    for (let times = 0; times < 3; times += 1) {
      stage.unmount();
      await pause(LINGER_MS / 4);
      stage.render(h(State));
      t.ok(/^SUCCESS 1 [1-9]/.test(stage.text), `all is known at once: ${stage.text}`);
    }
    await pause(2 * LINGER_MS);
    t.equal(stage.requests.length, asked, "requests");
    await connections(stage, 1);
  }),

  staged("an unmount leaves no watch and no connection", async (t, stage) => {
    const { uuid } = await t.run("canvas.add", 40, 2);
    const told: Event[] = [];
    const Everything = () => {
      useEvents();
      useEvents({ uuid }, { onEvent: (event) => told.push(event) });
      return h(
        "p",
        null,
        useTask(uuid)?.state,
        " ",
        useWorkflow(uuid)?.progress,
        " ",
        useWorkers()?.length,
        useStatus(),
      );
    };
    stage.render(h(Everything));
    await t.until("all is known", () => /^SUCCESS 1 [1-9]\d*open/.test(stage.text));
    await connections(stage, 1);
    const asked = stage.requests.length;
    told.length = 0;
    stage.unmount();
    await connections(stage, 0);
    t.equal(stage.client.status, "idle", "the status");
    await tell(t, uuid, "task-received");
    await pause(LINGER_MS);
    t.equal((await stage.door.state()).open, 0, "connections afterwards");
    t.equal(stage.requests.length, asked, "requests afterwards");
    t.equal(told, [], "what onEvent was told");
  }),

  staged("useWorkflow's progress reaches 1", async (t, stage) => {
    const { root_id } = await t.run("chain", 3, 4, 5);
    const { Component, renders } = probe(
      ({ rootId }: { rootId: string | null }) => useWorkflow(rootId),
      (workflow) => workflow && `${workflow.ready} of ${workflow.total}: ${workflow.progress}`,
    );
    stage.render(h(Component, { rootId: null }));
    await stage.shows("null");
    stage.render(h(Component, { rootId: root_id }));
    await stage.shows("4 of 4: 1");
    const { tasks, counts } = renders.at(-1)!.value!;
    t.equal(tasks[0]!.children[0]!.children[0]!.children[0]!.result, "15", "the last of the chain");
    t.equal(counts, { SUCCESS: 4 }, "counts");
  }),

  staged("useWorkers shows the workers, useStatus the connection", async (t, stage) => {
    const { Component } = probe(useWorkers, (workers) => workers?.map(({ alive }) => alive).includes(true));
    const { Component: Status, renders } = probe(useStatus, String);
    stage.render(h(Fragment, null, h(Component), " ", h(Status)));
    await stage.shows("true open");
    stage.client.close();
    await stage.shows("true closed");
    const seen = renders.map(({ value }) => value).filter((value, index, all) => value !== all[index - 1]);
    t.equal(seen, ["idle", "connecting", "open", "closed"], "statuses");
  }),

  staged(
    "useEvents keeps its stream while the filter says the same, however it is written",
    async (t, stage) => {
      const [name, other] = [unique("tick"), unique("tick")];
      const { Component } = probe(
        ({ names }: { names: string[]; round: number }) => useEvents({ name: [...names], type: "task-*" }),
        (events) => events.map((event) => event["n"]).join(),
      );
      const show = (names: string[], round: number) => stage.render(h(Component, { names, round }));
      show([name], 0);
      await stage.open();
      await (await t.load(name, 5)).done();
      await stage.shows("0,1,2,3,4");
      for (let round = 1; round <= 20; round += 1) {
        show([name], round);
        await pause(10);
      }
      await pause(2 * LINGER_MS);
      t.equal(stage.requests.length, 1, "requests");
      t.equal(stage.text, "0,1,2,3,4", "what is shown");
      show([other], 21);
      await stage.shows("");
      await t.until("the other is asked for", () => stage.requests.length === 2);
      await connections(stage, 1);
      await stage.open();
      await pause(LINGER_MS);
      await (await t.load(name, 3)).done();
      await (await t.load(other, 2)).done();
      await stage.shows("0,1");
    },
  ),

  staged("useEvents keeps the latest, and tells onEvent of all", async (t, stage) => {
    const name = unique("tick");
    const told: Event[] = [];
    let limitOfLast: number | undefined;
    const { Component, renders } = probe(
      ({ limit }: { limit: number | undefined }) =>
        useEvents({ name }, { limit, onEvent: (event) => void (limitOfLast = told.push(event) && limit) }),
      (events) => events.map((event) => event["n"]).join(),
    );
    stage.render(h(Component, { limit: 3 }));
    await stage.open();
    await (await t.load(name, 250, { batch: 10 })).done();
    await stage.shows("247,248,249");
    t.equal(
      numbers(told),
      Array.from({ length: 250 }, (_, n) => n),
      "what onEvent was told",
    );
    t.ok(
      renders.every(({ value }) => value.length <= 3),
      "no more were ever shown",
    );
    t.equal(limitOfLast, 3, "what onEvent saw");
    stage.render(h(Component, { limit: 2 }));
    t.equal(stage.text, "248,249", "at once");
    stage.render(h(Component, { limit: undefined }));
    await (await t.load(name, 200, { batch: 10 })).done();
    await t.until("the last is shown", () => renders.at(-1)!.value.at(-1)?.["n"] === 199);
    t.equal(renders.at(-1)!.value.length, 100, "as many as are kept if nothing is said");
    t.equal(limitOfLast, undefined, "what onEvent, of the last render, saw");
    t.equal(stage.requests.length, 1, "requests");
  }),

  staged("a storm of events renders as often as a reader can see, or not at all", async (t, stage) => {
    const name = unique("tick");
    const uuid = crypto.randomUUID();
    let told = 0;
    const list = listOf(() => useEvents({ name }));
    const unseen = listOf(() => useEvents({ name }, { limit: 0, onEvent: () => (told += 1) }));
    const task = taskState();
    stage.render(h(Fragment, null, h(list.Component), h(unseen.Component), h(task.Component, { uuid })));
    await stage.open();
    await pause(LINGER_MS);
    const before = [unseen.commits, task.commits];
    await (await t.load(name, 1_000, { per_second: 400 })).done();
    await t.until("all are told", () => told === 1_000);
    await t.until("the last is shown", () => list.renders.at(-1)!.value.at(-1)?.["n"] === 999);
    // StrictMode renders twice what it shows once.
    const shown = list.renders.filter(({ value }, index, all) => value !== all[index - 1]?.value).slice(1);
    for (const [index, { atMs }] of shown.slice(1).entries()) {
      const pauseMs = atMs - shown[index]!.atMs;
      t.ok(pauseMs > PACE_MS - 2, `after ${pauseMs} ms it was rendered again`);
    }
    t.equal([unseen.commits, task.commits], before, "commits of the others");
  }),

  staged("many events of a task in one message are one render", async (t, stage) => {
    const uuid = crypto.randomUUID();
    const task = probe(
      ({ uuid }: { uuid: string }) => useTask(uuid),
      (task) => task?.custom?.["n"],
    );
    stage.render(h(task.Component, { uuid }));
    await stage.open();
    const before = task.commits;
    const timestamp = Date.now() / 1_000;
    const event = { type: "task-tick", uuid, hostname: "w1@host", utcoffset: 0, pid: 1 };
    const numbered = Array.from({ length: 1_000 }, (_, n) => ({
      ...event,
      n,
      clock: n,
      timestamp: timestamp + n / 1_000,
    }));
    await t.command("/publish", { bodies: [numbered] });
    await stage.shows("999");
    t.ok(task.commits - before <= 50, `the task was rendered ${task.commits - before} times`);
  }),

  staged("another client in the provider: the hooks go over", async (t, stage) => {
    const { uuid } = await t.run("canvas.add", 40, 2);
    const { Component } = taskState();
    const Known = () =>
      h(Fragment, null, h(Component, { uuid }), useGateway() === stage.client ? " first" : " second");
    stage.render(h(Known));
    await stage.shows("SUCCESS first");
    stage.render(h(Known), stage.connect());
    await stage.shows("SUCCESS second");
    await connections(stage, 1);
    t.equal(stage.client.status, "idle", "the status of the first");
  }),

  staged("wrong uses are told where they are made", async (t, stage) => {
    const expected = (event: globalThis.Event) => event.preventDefault();
    addEventListener("error", expected); // React 18 lets the page know of what a boundary has caught
    const Wrong = ({ use }: { use: () => unknown }) => h("p", null, String(use()));
    const Named = ({ name }: { name: string }) => h(Wrong, { use: () => useEvents({ [name]: "shop.*" }) });
    stage.render(h(Catch, null, h(Named, { name: "nam" })));
    await t.until("the field is named", () => /TypeError: .*nam/.test(stage.text));
    const { createRoot } = await import("react-dom/client");
    const bare = createRoot(stage.container.appendChild(document.createElement("div")));
    bare.render(h(Catch, null, h(Wrong, { use: () => useTask("1") })));
    await t.until("the provider is named", () => /Error: .*<GatewayProvider/.test(stage.text));
    bare.unmount();
    removeEventListener("error", expected);
    t.equal(stage.requests, [], "requests");
    stage.complaints.length = 0; // React 19 says that there, too
  }),

  staged(
    "a page from a server is taken over without a word, and then shows what is known",
    async (t, stage) => {
      const { uuid } = await t.run("canvas.add", 40, 2);
      await stage.client.task(uuid).ready;
      const watch = stage.client.task(uuid);
      watch.subscribe(() => undefined);
      await t.until("it is known", () => watch.value);
      const App = () =>
        h(
          "p",
          null,
          useTask(uuid)?.state ?? "nothing",
          " ",
          String(useWorkflow(uuid)?.progress),
          " ",
          useStatus(),
        );
      stage.container.innerHTML = renderToString(framed(stage.client, h(App)));
      t.equal(stage.text, "nothing undefined idle", "what the server gives");
      stage.hydrate(h(App));
      await stage.shows("SUCCESS 1 open");
    },
  ),

  ...(Activity
    ? [
        staged("what is hidden watches nothing, and begins anew when it is shown", async (t, stage) => {
          const name = unique("tick");
          const list = listOf(() => useEvents({ name }));
          const show = (mode: string) => stage.render(h(Activity, { mode }, h(list.Component)));
          show("visible");
          await stage.open();
          await (await t.load(name, 2)).done();
          await stage.shows("0,1");
          show("hidden");
          await connections(stage, 0);
          const other = t.connect({ url: stage.door.url });
          const told: Event[] = [];
          other.events({ name }).subscribe((event) => told.push(event));
          await t.open(other);
          await (await t.load(name, 2)).done();
          await t.until("others have been told", () => told.length === 2);
          show("visible");
          t.equal(stage.text, "", "at once");
          await stage.open();
          await (await t.load(name, 3)).done();
          await stage.shows("0,1,2");
        }),
      ]
    : []),

  staged(
    "onGap is told where events are missing; state comes back by itself",
    async (t, stage) => {
      const uuid = crypto.randomUUID();
      const gaps: Gap[] = [];
      const { Component } = taskState();
      const Gaps = () => {
        const [count, setCount] = useState(0);
        useEvents({ uuid }, { onGap: (gap) => setCount(gaps.push(gap)) });
        return h(Fragment, null, h(Component, { uuid }), ` ${count} gaps`);
      };
      stage.render(h(Gaps));
      await stage.open();
      await tell(t, uuid, "task-received");
      await stage.shows("RECEIVED 0 gaps");
      await t.command("/gateway/restart", { kill: true });
      await t.until("the gap is told", () => gaps.length > 0);
      await stage.open();
      t.equal(stage.text.slice(0, 8), "RECEIVED", "what the new gateway does not know");
      await tell(t, uuid, "task-succeeded");
      await t.until("it goes on", () => stage.text === `SUCCESS ${gaps.length} gaps`);
    },
    true,
  ),
];

/** Shows what a render has thrown. */
class Catch extends Component<{ children: ReactNode }, { error: unknown }> {
  override state = { error: null };

  static getDerivedStateFromError(error: unknown): { error: unknown } {
    return { error };
  }

  override render(): ReactNode {
    return this.state.error ? String(this.state.error) : this.props.children;
  }
}
