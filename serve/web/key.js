// The API key, kept in the session storage of the tab.

const NAME = "stbir.key";

export function readKey() {
  return sessionStorage.getItem(NAME);
}

export function writeKey(key) {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
}

export function authorization() {
  const key = readKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// `onChange()` is called when the user enters or forgets a key.
export class KeyDialog {
  constructor(dialog, onChange) {
    this.dialog = dialog;
    this.field = dialog.querySelector("input");
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "") return; // dismissed with Escape
      writeKey(dialog.returnValue === "use" ? this.field.value.trim() : "");
      onChange();
    });
  }

  open({ isRejected = false } = {}) {
    if (this.dialog.open) return;
    this.field.value = "";
    this.dialog.returnValue = "";
    this.dialog.querySelector("#key-rejected").hidden = !isRejected;
    this.dialog.showModal();
  }
}
