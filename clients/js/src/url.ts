/** The URLs of a gateway's stream and of its session. */
import { GatewayError } from "./errors.js";

/**
 * Return the URL of the stream; undefined for a relative URL where there is no page, as while a server renders one.
 *
 * @param given the gateway's URL.
 * @param path of another endpoint.
 * @throws GatewayError with the code `bad-url`.
 */
export function streamUrl(given: string | URL, isSocket: boolean, path = isSocket ? "/ws" : "/events"): URL | undefined {
  const base = globalThis.location?.href;
  const bad = (why: string): GatewayError => {
    const hint = /^[\w.-]+:\d+/.test(`${given}`) ? `; write "http://${given}"` : "";
    return new GatewayError(`invalid url="${given}": ${why}${hint}`, { code: "bad-url" });
  };
  let url: URL;
  try {
    url = new URL(given, base);
  } catch {
    if (!base && URL.canParse(given, "http://page")) return undefined;
    throw bad('expected a URL such as "http://localhost:8555", or on a page a path such as "/celery"');
  }
  if (!(isSocket ? /^(http|ws)s?:$/ : /^https?:$/).test(url.protocol)) {
    throw bad(`${url.protocol} is no scheme of a gateway, expected http: or https:`);
  }
  if (!isSocket && url.username + url.password) throw bad("fetch accepts no user or password in it; use the option token");
  url.pathname = url.pathname.replace(/\/*$/, () => path);
  url.hash = "";
  return url;
}

/** As `streamUrl`, but a relative URL outside of a page is an error. */
export function usableUrl(...given: Parameters<typeof streamUrl>): URL {
  const url = streamUrl(...given);
  if (url) return url;
  throw new GatewayError(`relative url="${given[0]}" outside of a page: write the whole URL`, { code: "bad-url" });
}
