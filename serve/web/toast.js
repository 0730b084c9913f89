// A message that disappears after a few seconds.

const DURATION_MS = 6000;
let timer = null;

export function showToast(message) {
  const toast = document.getElementById("toast");
  toast.textContent = message;
  clearTimeout(timer);
  timer = setTimeout(() => (toast.textContent = ""), DURATION_MS);
}
