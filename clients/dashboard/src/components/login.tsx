/** The form for a token. */
import { useEffect, useRef, useState } from "preact/hooks";
import { FORBIDDEN, signIn, signOut } from "../session.ts";
import { visible } from "../text.ts";

export { signOut } from "../session.ts";

export interface LoginProps {
  /** Why the form is shown; empty at first. */
  readonly problem: string;
  /** A token of the address, which is tried at once. */
  readonly token?: string;
  /** Whether the token of the request does not allow the dashboard. */
  readonly isForbidden?: boolean;
}

export function Login({ problem, token = "", isForbidden }: LoginProps) {
  const input = useRef<HTMLInputElement>(null);
  const [result, setResult] = useState<string | null>(null);
  const attempt = (token: string): void => {
    setResult("Signing in …");
    void signIn(token).then(setResult);
  };
  useEffect(() => {
    if (token) attempt(token);
  }, [token]);
  useEffect(() => input.current?.focus(), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    const { value } = input.current!;
    input.current!.value = "";
    attempt(value);
  };
  return (
    <form class="login card" autocomplete="off" onSubmit={submit}>
      <h2>You need {isForbidden ? "another" : "a"} token</h2>
      <p role="alert" class="bad">{visible(result ?? (isForbidden ? FORBIDDEN : problem))}</p>
      <label>
        Token
        <input ref={input} id="token" type="password" autocomplete="off" autocapitalize="off" spellcheck={false} required />
      </label>
      <p class="inline">
        <button class="primary">Sign in</button>
        {isForbidden && <button type="button" onClick={() => void signOut().then(setResult)}>Sign out</button>}
      </p>
      <p class="muted">
        The operator of the gateway creates one: <code>celery-gateway token create NAME --may events,state,workers,dashboard</code>
      </p>
    </form>
  );
}
