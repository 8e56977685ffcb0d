/** A button that adds a page to a list. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ErrorBox } from "./layout.tsx";

export interface MoreButtonProps {
  readonly list: { readonly current: { more(): Promise<void> } | null };
}

export function MoreButton({ list }: MoreButtonProps) {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<Error | null>(null);
  const isMounted = useRef(true);
  useEffect(() => () => void (isMounted.current = false), []);
  const load = async (): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await list.current?.more();
    } catch (failure) {
      if (isMounted.current) setError(failure as Error);
    }
    if (isMounted.current) setBusy(false);
  };
  return (
    <>
      {error && <ErrorBox error={error} />}
      <button type="button" disabled={isBusy} onClick={() => void load()}>{isBusy ? "Loading …" : "Load more"}</button>
    </>
  );
}
