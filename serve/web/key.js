// The key of an endpoint that asks for one: kept until the tab is closed, and nowhere else.

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

// The dialog that asks for it; `given()` is called when there is another key.
export class KeyDialog {
  constructor(dialog, given) {
    this.dialog = dialog;
    this.field = dialog.querySelector("input");
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "") return; // put off with Escape
      writeKey(dialog.returnValue === "use" ? this.field.value.trim() : "");
      given();
    });
  }

  ask({ refused = false } = {}) {
    if (this.dialog.open) return;
    this.field.value = "";
    this.dialog.returnValue = "";
    this.dialog.querySelector("#key-refused").hidden = !refused;
    this.dialog.showModal();
  }
}
