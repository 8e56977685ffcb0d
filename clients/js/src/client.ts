import { connectCore } from "./core.js";
import { taskWatches } from "./task-watches.js";
import type { Client, ClientOptions } from "./types.js";

/**
 * Return a client of the gateway at a URL. It connects when something is watched, not before.
 *
 * @throws GatewayError with the code `bad-url` if the URL is malformed or of another scheme. A relative URL where there
 *   is no page, and a missing WebSocket, are errors at the first connection.
 */
export function connect(options: ClientOptions): Client {
  return connectCore(options, () => taskWatches);
}
