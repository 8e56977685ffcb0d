/** The attempts of a task over time: how long each waited and ran. */
import { useId, useState } from "preact/hooks";
import type { Attempt, Task } from "../../../js/src/types.ts";
import { now } from "../gateway.ts";
import { attemptsOf, barsOf, extentOf, rectOf, scaleOf, ticksOf, type Bar, type Scale } from "../gantt.ts";
import { isReady, lookOf } from "../states.ts";
import { useComputed } from "../store.ts";
import { exceptionText } from "../text.ts";
import { duration } from "../time.ts";
import { useWidth } from "../width.ts";
import { HatchPattern } from "./hatch.tsx";
import { SilentPart } from "./silent-note.tsx";
import { Text } from "./text.tsx";
import { Duration, StateBadge, Time } from "./values.tsx";

const HEIGHT = 20;
const AXIS = 18;

/** The words of the parts of a bar. */
export const PARTS: Readonly<Record<Bar["part"], string>> = { queue: "waits in the queue", eta: "waits for its time (eta)", run: "runs" };

/** Return the class of a bar: the colour of a run is that of its state. */
export function barClass({ part, state, isOpen }: Bar): string {
  return part === "run" ? `run state-${lookOf(state).kind}${isOpen ? " open" : ""}` : part;
}

export function Phases({ task }: { readonly task: Task }) {
  const [isTable, showTable] = useState(false);
  const [ref, width] = useWidth(600);
  const isRunning = !isReady(task.state) && task.state !== "LOST";
  const at = useComputed(() => (isRunning ? now.value : 0), now);
  const range = extentOf([task], at);
  if (!range) return null;
  const scale = scaleOf(range, width);
  const bars = barsOf(task, at);
  return (
    <figure class="phases card" ref={ref}>
      <figcaption class="inline">
        <span class="legend"><i class="swatch queue" /> queue</span>
        {bars.some(({ part }) => part === "eta") && <span class="legend"><i class="swatch eta" /> eta</span>}
        {[...new Set(bars.filter(({ part }) => part === "run").map(({ state }) => state))].map((state) => (
          <span key={state} class="legend"><i class={`swatch state-${lookOf(state).kind}`} /> <Text value={state} max={24} /></span>
        ))}
        <button type="button" class="push" aria-pressed={isTable} onClick={() => showTable(!isTable)}>Show as table</button>
      </figcaption>
      {isTable ? <Attempts task={task} /> : <Chart task={task} bars={bars} scale={scale} />}
    </figure>
  );
}

function Chart({ task, bars, scale }: { readonly task: Task; readonly bars: readonly Bar[]; readonly scale: Scale }) {
  const { range: [from, to], width } = scale;
  const attempts = [...new Set(bars.map(({ attempt }) => attempt))];
  const label = `${attempts.length} ${attempts.length === 1 ? "attempt" : "attempts"} in ${duration(to - from)}, ${task.state}`;
  return (
    <svg class="gantt" width={width} height={HEIGHT + AXIS} role="img" aria-label={label}>
      <HatchPattern />
      {bars.map((bar, index) => {
        const rect = rectOf(scale, [bar.from, bar.to]);
        return rect && (
          <rect key={index} class={barClass(bar)} x={rect.x} y={3} width={rect.width} height={HEIGHT - 6}>
            <title>{`attempt ${bar.attempt} ${PARTS[bar.part]}: ${duration(bar.to - bar.from)}`}</title>
          </rect>
        );
      })}
      <SilentPart task={task} bars={bars} scale={scale} y={3} height={HEIGHT - 6} />
      {attempts.length > 1 && bars.filter((bar, index) => bar.attempt !== bars[index - 1]?.attempt).map((bar) => (
        <text key={bar.attempt} class="try" x={scale.x(bar.from) + 3} y={HEIGHT - 7}>{bar.attempt}</text>
      ))}
      <Ticks scale={scale} origin={from} y={HEIGHT + 13} />
    </svg>
  );
}

/** Round numbers of seconds since `origin`, at their places. */
export function Ticks({ scale, origin, y }: { readonly scale: Scale; readonly origin: number; readonly y: number }) {
  return (
    <>
      {ticksOf(scale.range, origin, Math.max(2, scale.width / 90)).map((time) => {
        const text = time - origin < 1e-6 ? "0" : duration(time - origin);
        const widest = 8 * text.length; // so that the last one is not cut
        return <text key={time} class="tick" x={Math.max(0, Math.min(scale.x(time) + 2, scale.width - widest))} y={y}>{text}</text>;
      })}
    </>
  );
}

/** The attempts of a task as a table. */
export function Attempts({ task }: { readonly task: Task }) {
  const id = useId();
  const attempts = attemptsOf(task) as readonly Partial<Attempt>[];
  const first = Math.max(1, task.attempt - attempts.length + 1);
  return (
    <div class="scroll-x" tabIndex={0} role="region" aria-labelledby={id}>
      <table class="attempts">
        <caption id={id} class="visually-hidden">Attempts</caption>
        <thead>
          <tr>{["Attempt", "State", "Sent", "Eta", "Received", "Started", "Ended", "Ran", "Worker", "Exception"].map((name) => <th key={name} scope="col">{name}</th>)}</tr>
        </thead>
        <tbody>
          {attempts.map(({ state = "PENDING", sent, eta, received, started, ended, worker, exception = null }, index) => (
            <tr key={first + index}>
              <th scope="row">{first + index}</th>
              <td><StateBadge state={state} /></td>
              <td><Time value={sent} as="clock" /></td>
              <td><Time value={eta ? Date.parse(eta) / 1_000 : null} as="clock" /></td>
              <td><Time value={received} as="clock" /></td>
              <td><Time value={started} as="clock" /></td>
              <td><Time value={ended} as="clock" /></td>
              <td><Duration value={started != null && ended != null ? ended - started : null} /></td>
              <td><Text value={worker ?? "–"} max={60} /></td>
              <td><Text value={exceptionText({ exception, traceback: index === attempts.length - 1 && task.traceback }) || "–"} max={120} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
