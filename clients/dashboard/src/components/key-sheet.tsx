/** The sheet of keys. */
import { useEffect, useRef } from "preact/hooks";
import { KEYS } from "../keys.ts";

export function KeySheet({ onClose }: { readonly onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const groups = [...new Set(KEYS.map(({ group }) => group))];
  return (
    <dialog class="sheet" ref={dialog} aria-labelledby="sheet-title" onClose={onClose} onClick={(event) => event.target === dialog.current && onClose()}>
      <div class="sheet-body">
        <div class="view-head">
          <h2 id="sheet-title">Keys</h2>
          <button type="button" class="push" onClick={onClose}>Close</button>
        </div>
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {KEYS.filter((key) => key.group === group).map(({ id, keys, what }) => (
                <div key={id}>
                  <dt>{keys.map((key, index) => <span key={key}>{index > 0 && " or "}<kbd>{key}</kbd></span>)}</dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </dialog>
  );
}
