/** The session of the browser: a token becomes a cookie that scripts cannot read. The page does not keep the token. */
import { readPage, reconnect } from "./gateway.ts";
import { base } from "./navigation.ts";

export const FORBIDDEN = 'This token does not allow the dashboard: its scope must have "dashboard" in "may".';

/** Start a session. Return why it cannot start, or an empty text if it has. */
export async function signIn(given: string): Promise<string> {
  const token = given.trim().replace(/^Bearer\s+/i, "");
  if (!/^[!-~]+$/.test(token)) return "This is not a token: a token has no spaces, and only ASCII characters.";
  if (!isSecureContext) return "A session requires HTTPS, except on localhost: open this page at its https: address.";
  try {
    const started = await fetch(new URL("session", base), { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    if (!started.ok) return (await messageOf(started)) ?? `The gateway refused the token: HTTP ${started.status}.`;
    const page = await fetch(base, { cache: "no-store", headers: { Accept: "text/html" } });
    const { status } = page;
    if (status === 401) return "The browser did not keep the session's cookie: allow cookies for this page, and use HTTPS.";
    if (status === 403) {
      await fetch(new URL("session", base), { method: "DELETE" });
      return FORBIDDEN;
    }
    readPage(await page.text());
  } catch {
    return "The gateway does not respond. Try again.";
  }
  reconnect();
  return "";
}

/** End the session; return why it could not be ended. */
export async function signOut(): Promise<string> {
  try {
    const response = await fetch(new URL("session", base), { method: "DELETE" });
    if (!response.ok) return `could not sign out: HTTP ${response.status}`;
  } catch {
    return "could not sign out: the gateway does not respond";
  }
  location.reload();
  return "";
}

async function messageOf(response: Response): Promise<string | undefined> {
  try {
    return (await response.json()).error.message;
  } catch {
    return undefined; // of a proxy
  }
}
