/** The dashboard: the shell, and the view of the current address. */
import { Component, type ComponentChildren, render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ErrorBox, focusMain, Skeleton, ViewFrame } from "./components/layout.tsx";
import { Link } from "./components/link.tsx";
import { lazy } from "./components/lazy.tsx";
import { usePageTitle } from "./components/page-title.ts";
import { Header, useStatus } from "./components/shell.tsx";
import { access, health, may, refusal } from "./gateway.ts";
import { listenToKeys, useKeys } from "./keys.ts";
import { listenToLinks, reload, route } from "./navigation.ts";
import { PARAMETERS, type Route, unknownParameters } from "./route.ts";
import { use } from "./store.ts";
import { takeToken } from "./token.ts";
import { visible } from "./text.ts";
import { KIND, NAV, type View, VIEWS } from "./views/registry.ts";

const urlToken = takeToken(); // before anything is requested
reload();
const Login = lazy(() => import("./components/login.tsx").then(({ Login }) => Login));
const KeySheet = lazy(() => import("./components/key-sheet.tsx").then(({ KeySheet }) => KeySheet));

/** Shows an exception of a view in place of the view. */
class Boundary extends Component<{ readonly children: ComponentChildren }, { readonly error: Error | null }> {
  override state = { error: null };

  static override getDerivedStateFromError(error: unknown) {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  override componentDidCatch(error: unknown): void {
    console.error(error);
  }

  override render() {
    const { error } = this.state;
    return error ? <Broken error={error} retry={() => this.setState({ error: null })} /> : this.props.children;
  }
}

/** Loads the page again once the gateway is back: some browsers do not ask twice for the same code, and a newer gateway has other code. */
function Broken({ error, retry }: { readonly error: Error; readonly retry: () => void }) {
  useEffect(() => {
    let wasAway = false;
    return health.subscribe((value) => {
      if (value?.status !== "open") wasAway ||= value?.heardMs != null; // it was there before
      else if (wasAway) location.reload();
    });
  }, []);
  return (
    <ViewFrame name="broken" state="error" title="This view cannot be shown">
      <ErrorBox error={error}>
        <button type="button" onClick={retry}>Try again</button>
      </ErrorBox>
    </ViewFrame>
  );
}

/** The view of a route, once its code is loaded. */
function Loaded({ route }: { readonly route: Route }) {
  const [loaded, setLoaded] = useState<{ readonly name: string; readonly view: View }>();
  const [error, setError] = useState<Error>();
  const name = route.view;
  useEffect(() => {
    let isCurrent = true;
    if (name === "unknown") return;
    VIEWS[name]().then(
      ({ default: view }) => isCurrent && setLoaded({ name, view }),
      () => isCurrent && setError(new Error("The code of this view could not be loaded. Load the page again, unless the gateway is away: the page waits for it.")),
    );
    return () => void (isCurrent = false);
  }, [name]);
  useEffect(() => {
    // What had the focus may be gone with the view before.
    if (loaded && (!document.activeElement || document.activeElement === document.body)) focusMain();
  }, [loaded, route.id]);
  if (error) throw error;
  if (loaded?.name !== name) return <ViewFrame name={name} state="loading" title=""><Skeleton /></ViewFrame>;
  return <loaded.view key={`${name} ${route.id}`} route={route} />;
}

/** Parameters that the view does not know would be ignored; so the view is not shown with them. */
function UnknownParameters({ route, names }: { readonly route: Route; readonly names: readonly string[] }) {
  const without = (gone: readonly string[]) => ({ ...route, query: route.query.filter(([name]) => !gone.includes(name)) });
  const known = route.view === "unknown" ? [] : PARAMETERS[route.view].filter((name) => !/[<>=]/.test(name));
  return (
    <ViewFrame name={route.view} state="error" title="This address has parameters that the page does not know">
      <ErrorBox error={`Without them, more would be shown than was asked for. Allowed here: ${known.join(", ") || "none"}.`}>
        <ul class="inline">
          {names.map((name) => (
            <li key={name}><Link to={without([name])} class="chip">Take away <bdi><code>{visible(name)}</code></bdi></Link></li>
          ))}
          {names.length > 1 && <li><Link to={without(names)} class="chip">Take away all</Link></li>}
        </ul>
      </ErrorBox>
    </ViewFrame>
  );
}

function Current({ route }: { readonly route: Route }) {
  const allowed = use(may);
  if (route.view === "unknown") {
    return (
      <ViewFrame name="unknown" state="error" title="There is nothing at this address">
        <p>These are the views: {NAV.map(({ view, label }, index) => <span key={view}>{index > 0 && ", "}<Link to={{ view }}>{label}</Link></span>)}.</p>
      </ViewFrame>
    );
  }
  if (!allowed.includes(KIND[route.view])) {
    return (
      <ViewFrame name={route.view} state="error" title="This token does not allow this view">
        <ErrorBox error={`Its scope must have "${KIND[route.view]}" in "may".`} />
      </ViewFrame>
    );
  }
  const unknown = unknownParameters(route);
  if (unknown.length) return <UnknownParameters route={route} names={unknown} />;
  return <Boundary key={route.view}><Loaded route={route} /></Boundary>;
}

function App() {
  const [isSheetOpen, openSheet] = useState(false);
  const [token, setToken] = useState(urlToken);
  useEffect(() => {
    const take = (): void => setToken(takeToken());
    addEventListener("hashchange", take);
    return () => removeEventListener("hashchange", take);
  }, []);
  const [given, refused] = [use(access), use(refusal)];
  const isOut = given === "login" || given === "forbidden";
  const isEnded = given === "session" && refused?.status !== 403;
  const problem = !refused ? "" : isEnded ? "The session has ended. Sign in to go on: what is shown stays." : refused.message;
  const login = given !== "open" && (isOut || refused || token) ? <Login problem={problem} token={token} isForbidden={given === "forbidden"} /> : null;
  return isOut ? <main id="main" data-view="login" data-state="ready">{login}</main> : <SignedIn login={login} isSheetOpen={isSheetOpen} openSheet={openSheet} />;
}

interface SignedInProps {
  readonly login: ComponentChildren;
  readonly isSheetOpen: boolean;
  readonly openSheet: (isOpen: boolean) => void;
}

function SignedIn({ login, isSheetOpen, openSheet }: SignedInProps) {
  const shown = use(route);
  const status = useStatus();
  useKeys({ sheet: () => openSheet(true) });
  usePageTitle(titleOf(shown), status.level);
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>Skip to the contents</button>
      <Header status={status} />
      {login}
      <Current route={shown} />
      <footer class="muted">
        <button type="button" class="plain link" onClick={() => openSheet(true)}>Keys <kbd>?</kbd></button>
      </footer>
      {isSheetOpen && <KeySheet onClose={() => openSheet(false)} />}
    </>
  );
}

function titleOf({ view, id }: Route): string {
  if (id) return visible(id);
  return NAV.find((item) => item.view === view)?.label ?? { queues: "Queues", failures: "Failures" }[view as string] ?? "";
}

listenToKeys();
listenToLinks();
render(<App />, document.getElementById("app")!);
