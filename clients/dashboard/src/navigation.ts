/** The current route, and how it changes: links, `go`, back and forward. */
import { href, parseRoute, type Query, type Route } from "./route.ts";
import { store } from "./store.ts";

/** The address of the overview. `<base>` has it, and it stays when the address changes. */
export const base = new URL(document.baseURI);
export const route = store<Route>(parseRoute(new URL(location.href), base));

/** Take the route from the address. */
export function reload(): void {
  route.value = parseRoute(new URL(location.href), base);
}

/** Show a route; `replace`: in place of the current one in the history. The entry that is left has the place for a table. */
export function go(to: Partial<Route>, { replace = false } = {}): void {
  const url = new URL(href(to), base);
  if (url.href !== location.href) {
    if (!replace) history.replaceState([scrollY, document.activeElement?.closest("tr")?.dataset["key"]], "");
    history[replace ? "replaceState" : "pushState"](null, "", url);
  }
  reload();
  if (!replace) scrollTo(0, 0);
}

/** Show the same view with another query; in place of the current address by default. */
export function goQuery(query: Query, { replace = true } = {}): void {
  go({ ...route.value, query }, { replace });
}

/** Follow links of the dashboard without loading the page again. */
export function listenToLinks(): void {
  addEventListener("popstate", reload);
  addEventListener("click", (event) => {
    const link = (event.target as Element).closest?.("a[href]") as HTMLAnchorElement | null;
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const url = new URL(link.href);
    if (link.target || link.hasAttribute("download") || url.origin !== base.origin || url.hash) return;
    const to = parseRoute(url, base);
    if (to.view === "unknown" || to.query.some(([name]) => name === "format")) return;
    event.preventDefault();
    go(to);
  });
}
