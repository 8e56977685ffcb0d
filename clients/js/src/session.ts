/** Tokens in requests, and sessions of a browser: a cookie in place of a token, such as for `EventSource`. */
import { GatewayError, refusal } from "./errors.js";
import { usableUrl } from "./url.js";

/** Return a token without white space around it. The error does not contain the token: errors are logged. */
export function checked(token: string, allowed = /^[!-~]+$/): string {
  token = token.trim();
  if (allowed.test(token)) return token;
  throw new GatewayError("the token has characters that this transport cannot send", { code: "bad-token" });
}

/** Return the header of a token. */
export function bearer(token: string | undefined): Record<string, string> {
  return token ? { Authorization: `Bearer ${checked(token)}` } : {};
}

/**
 * Begin a session: the browser stores a cookie of the gateway, and sends it instead of a token. It ends with the token.
 * For a gateway of another origin set `credentials: "include"` in `connect`, or `withCredentials` of an EventSource.
 *
 * @param url the gateway's URL, on a page also a path such as `/celery`.
 * @throws GatewayError if the gateway refuses the token; TypeError if the network fails.
 */
export async function login(url: string | URL, token: string): Promise<void> {
  return request(url, "POST", bearer(token));
}

/** End the session and its streams. Throws as `login` does. */
export async function logout(url: string | URL): Promise<void> {
  return request(url, "DELETE");
}

async function request(given: string | URL, method: string, headers = {}): Promise<void> {
  const url = usableUrl(given, false, "/session");
  const response = await fetch(url, { method, headers, credentials: "include" });
  if (!response.ok) throw await refusal(url, response);
}
