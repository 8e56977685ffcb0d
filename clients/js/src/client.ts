import type { Client, ClientOptions } from "./types.js";

/**
 * Return a client of the gateway at a URL. It connects when something is watched, not before.
 *
 * @throws TypeError if the URL is none, or there is no WebSocket for the transport `websocket`.
 */
export function connect(options: ClientOptions): Client {
  throw new TypeError(`no gateway at ${options.url}`);
}
