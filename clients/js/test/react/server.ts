/** The hooks on a server: nothing is known there, and nothing is begun. */
import assert from "node:assert/strict";
import { createElement as h } from "react";
import * as React from "react";
import { renderToString } from "react-dom/server";
import { connect } from "../../dist/index.js";
import { GatewayProvider, useEvents, useStatus, useTask, useWorkers, useWorkflow } from "../../dist/react.js";

export const { version } = React;

export function rendersNothingKnown(): void {
  const asked: unknown[] = [];
  const client = connect({
    url: "http://127.0.0.1:9",
    fetch: async (input) => {
      asked.push(input);
      throw new TypeError("nobody is there");
    },
  });
  const App = () => {
    const known = [
      useTask("1"),
      useWorkflow("1"),
      useWorkers(),
      useEvents(),
      useEvents({ name: "a.*" }, { limit: 1 }),
    ];
    return h("p", null, JSON.stringify([...known, useStatus()]));
  };
  const html = renderToString(h(GatewayProvider, { client }, h(App)));
  assert.equal(html, "<p>[null,null,null,[],[],&quot;idle&quot;]</p>");
  assert.deepEqual(asked, []);
  assert.equal(client.status, "idle");
}
