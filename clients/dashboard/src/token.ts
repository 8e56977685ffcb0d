/** The token of an address. It is removed before anything is requested. */

/** Return the token of the address, and remove it there: addresses are kept in the history, and copied. */
export function takeToken(): string {
  const url = new URL(location.href);
  const token = new URLSearchParams(url.hash.slice(1)).get("token") ?? url.searchParams.get("access_token");
  if (token === null) return "";
  url.hash = "";
  if (url.searchParams.has("access_token")) {
    url.search = url.search.slice(1).split("&").filter((part) => !/^access_token(=|$)/.test(part)).join("&");
  }
  history.replaceState(null, "", url);
  return token;
}
