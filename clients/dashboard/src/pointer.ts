/** Whether the pointer moves, or the page below it: browsers report both as `pointermove`. */

let [x, y] = [NaN, NaN];
let isMoving = false;

addEventListener(
  "pointermove",
  ({ screenX, screenY }) => {
    isMoving = screenX !== x || screenY !== y;
    [x, y] = [screenX, screenY];
  },
  true,
);

/** Return whether the event that is handled now is a movement of the pointer. */
export function pointerMoves(): boolean {
  return isMoving;
}
