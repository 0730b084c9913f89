// Holding: a pointer that stays down on an element.

const HOLD_MS = 500;

// Calls `onHold(target)` when a pointer is held in the list. The click at its end has no effect.
export function acceptHold(list, onHold) {
  let timer = null;
  let isHeld = false;
  const hold = (target) => {
    isHeld = true;
    onHold(target);
  };
  list.addEventListener("pointerdown", ({ target, button }) => {
    clearTimeout(timer);
    isHeld = false;
    if (button === 0) timer = setTimeout(() => hold(target), HOLD_MS);
  });
  for (const type of ["pointerup", "pointercancel", "pointerleave", "dragstart"]) {
    list.addEventListener(type, () => clearTimeout(timer));
  }
  list.addEventListener("click", (event) => isHeld && event.detail && event.stopPropagation(), true); // 0: by keyboard
  list.addEventListener("contextmenu", (event) => event.pointerType === "touch" && event.preventDefault());
}
