/** Single requests to the gateway, with the token or the cookies of the client. */
import { refusal } from "./errors.js";
import { bearer } from "./session.js";
import type { ClientOptions, Params } from "./types.js";
import { usableUrl } from "./url.js";

/**
 * Send a request and return the JSON of the response.
 *
 * @param body of a POST; without one it is a GET.
 * @throws GatewayError if the gateway refuses; TypeError if the network fails.
 */
export type Request = (path: string, params?: Params, signal?: AbortSignal, body?: object) => Promise<any>;

/** Return what sends requests. A token of a function is kept until the gateway refuses it. */
export function http(options: ClientOptions): Request {
  const { token, credentials } = options;
  let kept: string | undefined;
  return async (path, params = {}, signal, body) => {
    const url = usableUrl(`${options.url}`.replace(/^ws/i, "http"), false, path);
    url.search = [url.search.slice(1), query(params)].filter(Boolean).join("&");
    for (let isAgain = false; ; isAgain = true) {
      if (typeof token === "function") kept = (!isAgain && kept) || (await token());
      const response = await (options.fetch ?? fetch)(url, {
        headers: {
          Accept: "application/json",
          ...(body && { "Content-Type": "application/json" }),
          ...bearer(kept ?? (token as string)),
        },
        ...(body && { method: "POST", body: JSON.stringify(body) }),
        ...(signal && { signal }),
        ...(credentials && { credentials }),
      });
      if (response.ok) return response.json();
      if (response.status !== 401 || isAgain || typeof token !== "function") throw await refusal(url, response);
    }
  };
}

/** Return parameters as a query. A name with `<` or `>` is a whole comparison, such as `runtime>=5`. */
export function query(params: Params): string {
  return Object.entries(params)
    .flatMap(([name, value]) => {
      const values = [value ?? []].flat().map((one) => encodeURIComponent(typeof one === "boolean" ? +one : one));
      return values.map((one) => encodeURIComponent(name) + (/[<>]/.test(name) ? "" : `=${one}`));
    })
    .join("&");
}
