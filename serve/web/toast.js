// A word in passing, over the page; gone by itself.

const STAYS_MS = 6000;
let timer = null;

export function tell(message) {
  const toast = document.getElementById("toast");
  toast.textContent = message;
  clearTimeout(timer);
  timer = setTimeout(() => (toast.textContent = ""), STAYS_MS);
}
